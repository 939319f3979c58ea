import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.Properties;
import org.postgresql.PGConnection;

/** The PostgreSQL JDBC driver: typical operations. Prints `ok NAME` or `FAILED NAME: reason`. */
public class Jdbc {
  interface Check {
    void run() throws Exception;
  }

  static Connection connect(String... more) throws SQLException {
    Properties properties = new Properties();
    properties.setProperty("user", System.getenv("PGUSER"));
    properties.setProperty("password", System.getenv("PGPASSWORD"));
    for (int i = 0; i < more.length; i += 2) properties.setProperty(more[i], more[i + 1]);
    String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/"
        + System.getenv("PGDATABASE");
    return DriverManager.getConnection(url, properties);
  }

  static void check(String name, Check check) {
    try {
      check.run();
      System.out.println("ok " + name);
    } catch (Throwable error) {
      System.out.println("FAILED " + name + ": " + String.valueOf(error).split("\n")[0]);
    }
  }

  static void equal(Object got, Object want) {
    if (!got.equals(want)) throw new AssertionError(got + ", expected " + want);
  }

  static long number(Connection c, String sql) throws SQLException {
    try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
      r.next();
      return r.getLong(1);
    }
  }

  public static void main(String[] arguments) {
    check("metadata that tools ask for", () -> {
      try (Connection c = connect()) {
        DatabaseMetaData meta = c.getMetaData();
        equal(meta.getTables(null, "pg_catalog", "pg_class", null).next(), true);
        equal(meta.getColumns(null, "pg_catalog", "pg_class", "relname").next(), true);
        meta.getPrimaryKeys(null, "pg_catalog", "pg_class").next();
        equal(c.isValid(5), true);
      }
    });
    for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
      check("prepared statement, preferQueryMode=" + mode, () -> {
        try (Connection c = connect("preferQueryMode", mode, "prepareThreshold", "2");
            PreparedStatement s = c.prepareStatement("SELECT ?::int + 1, ?")) {
          for (int n = 0; n < 10; n++) {
            s.setInt(1, n);
            s.setString(2, "it's " + n);
            try (ResultSet r = s.executeQuery()) {
              r.next();
              equal(r.getInt(1), n + 1);
              equal(r.getString(2), "it's " + n);
            }
          }
        }
      });
    }
    check("batch of inserts", () -> {
      for (String rewrite : new String[] {"false", "true"}) {
        try (Connection c = connect("reWriteBatchedInserts", rewrite); Statement s = c.createStatement()) {
          s.execute("CREATE TEMP TABLE t (a int, b text)");
          try (PreparedStatement p = c.prepareStatement("INSERT INTO t VALUES (?, ?)")) {
            for (int n = 0; n < 3000; n++) {
              p.setInt(1, n);
              p.setString(2, "v" + n);
              p.addBatch();
            }
            p.executeBatch();
          }
          equal(number(c, "SELECT count(*) FROM t"), 3000L);
        }
      }
    });
    check("fetch size pages through a portal", () -> {
      try (Connection c = connect()) {
        c.setAutoCommit(false);
        try (Statement s = c.createStatement()) {
          s.setFetchSize(17);
          long sum = 0;
          try (ResultSet r = s.executeQuery("SELECT generate_series(1, 1000)")) {
            while (r.next()) sum += r.getInt(1);
          }
          equal(sum, 500500L);
        }
        c.rollback();
      }
    });
    check("copy in and out", () -> {
      try (Connection c = connect(); Statement s = c.createStatement()) {
        s.execute("CREATE TEMP TABLE t (a int, b text)");
        var copy = c.unwrap(PGConnection.class).getCopyAPI();
        equal(copy.copyIn("COPY t FROM STDIN WITH CSV", new StringReader("1,one\n2,two\n")), 2L);
        StringWriter out = new StringWriter();
        copy.copyOut("COPY t TO STDOUT WITH CSV", out);
        equal(out.toString(), "1,one\n2,two\n");
      }
    });
    check("error, savepoint, and on", () -> {
      try (Connection c = connect(); Statement s = c.createStatement()) {
        c.setAutoCommit(false);
        Savepoint before = c.setSavepoint();
        try {
          s.execute("SELECT nothing");
          throw new AssertionError("no error");
        } catch (SQLException error) {
          equal(error.getSQLState(), "42703");
        }
        c.rollback(before);
        equal(number(c, "SELECT 7"), 7L);
        c.rollback();
      }
    });
    check("autosave=always", () -> {
      try (Connection c = connect("autosave", "always"); Statement s = c.createStatement()) {
        c.setAutoCommit(false);
        try {
          s.execute("SELECT nothing");
        } catch (SQLException expected) {
          equal(expected.getSQLState(), "42703");
        }
        equal(number(c, "SELECT 8"), 8L);
      }
    });
    check("query timeout cancels", () -> {
      try (Connection c = connect(); Statement s = c.createStatement()) {
        s.setQueryTimeout(1);
        try {
          s.execute("SELECT pg_sleep(60)");
          throw new AssertionError("not cancelled");
        } catch (SQLException error) {
          equal(error.getSQLState(), "57014");
        }
        equal(number(c, "SELECT 9"), 9L);
      }
    });
    check("large object through the fastpath", () -> {
      try (Connection c = connect()) {
        c.setAutoCommit(false);
        var objects = c.unwrap(PGConnection.class).getLargeObjectAPI();
        long oid = objects.createLO();
        var large = objects.open(oid);
        large.write(new byte[50000]);
        large.seek(0);
        equal(large.read(60000).length, 50000);
        c.rollback();
      }
    });
    check("notifications", () -> {
      try (Connection c = connect(); Statement s = c.createStatement()) {
        s.execute("LISTEN news");
        s.execute("NOTIFY news, 'hi'");
        var came = c.unwrap(PGConnection.class).getNotifications(5000);
        equal(came[0].getParameter(), "hi");
      }
    });
  }
}
