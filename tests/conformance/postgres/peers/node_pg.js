// node-postgres: typical operations. Prints `ok NAME` or `FAILED NAME: reason`.
"use strict";
const assert = require("node:assert");
const { Client, Pool } = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");

async function withClient(work, options = {}) {
  const client = new Client(options);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const checks = {
  async "simple and parameterised queries"() {
    await withClient(async (client) => {
      assert.deepStrictEqual((await client.query("SELECT 1 AS a; SELECT 2 AS b")).length, 2);
      const { rows } = await client.query("SELECT $1::text AS t, $2::int[] AS n", ["☃ it's", [1, 2]]);
      assert.deepStrictEqual(rows[0], { t: "☃ it's", n: [1, 2] });
    });
  },
  async "named prepared statement reused"() {
    await withClient(async (client) => {
      for (let n = 0; n < 20; n++) {
        const { rows } = await client.query({ name: "twice", text: "SELECT $1::int * 2 AS v", values: [n] });
        assert.strictEqual(rows[0].v, n * 2);
      }
    });
  },
  async "cursor with row limit"() {
    await withClient(async (client) => {
      const cursor = client.query(new Cursor("SELECT generate_series(1, 100) AS n"));
      assert.strictEqual((await cursor.read(30)).length, 30);
      assert.strictEqual((await cursor.read(100)).length, 70);
      await cursor.close();
    });
  },
  async "query stream"() {
    await withClient(async (client) => {
      let sum = 0;
      for await (const row of client.query(new QueryStream("SELECT generate_series(1, 5000) AS n"))) sum += row.n;
      assert.strictEqual(sum, 12502500);
    });
  },
  async "error with fields, then on"() {
    await withClient(async (client) => {
      await assert.rejects(client.query("SELECT nothing"), { code: "42703" });
      await assert.rejects(client.query("SELECT 1/$1::int", [0]), { code: "22012" });
      assert.strictEqual((await client.query("SELECT 3 AS v")).rows[0].v, 3);
    });
  },
  async "notification and notice"() {
    await withClient(async (client) => {
      const notice = new Promise((resolve) => client.once("notice", (n) => resolve(n.message)));
      await client.query("DO $$ BEGIN RAISE NOTICE 'hello'; END $$");
      assert.strictEqual(await notice, "hello");
      const came = new Promise((resolve) => client.once("notification", (n) => resolve(n.payload)));
      await client.query("LISTEN news");
      await client.query("NOTIFY news, 'payload'");
      assert.strictEqual(await came, "payload");
    });
  },
  async "pool under parallel use"() {
    const pool = new Pool({ max: 5 });
    const results = await Promise.all(
      Array.from({ length: 100 }, (_, n) => pool.query("SELECT $1::int AS v", [n]).then((r) => r.rows[0].v)),
    );
    assert.deepStrictEqual(results, Array.from({ length: 100 }, (_, n) => n));
    await pool.end();
  },
  async "binary results"() {
    await withClient(async (client) => {
      const { rows } = await client.query({ text: "SELECT $1::int8 AS v", values: ["42"], binary: true });
      assert.strictEqual(String(rows[0].v), "42");
    });
  },
};

(async () => {
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log(`ok ${name}`);
    } catch (error) {
      console.log(`FAILED ${name}: ${String(error.message || error).split("\n")[0]}`);
    }
  }
})();
