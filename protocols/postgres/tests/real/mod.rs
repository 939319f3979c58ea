//! Real peers for the login tests: a server started here, certificates made here, and
//! the small blocking glue that a gateway does with an event loop.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Where Debian keeps the server's programs.
const SERVER_PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// Longest wait for a peer; a test that hangs fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A certificate for `localhost`, signed by itself with ECDSA and SHA-256.
pub struct Certificate {
    pub der: Vec<u8>,
    pub key: Vec<u8>,
    pub pem: String,
    pub key_pem: String,
}

pub fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Certificate {
        der: made.cert.der().to_vec(),
        key: made.signing_key.serialize_der(),
        pem: made.cert.pem(),
        key_pem: made.signing_key.serialize_pem(),
    }
}

/// A byte stream, encrypted or not.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// What has arrived, or `None` at the end.
pub fn receive(stream: &mut dyn Stream) -> Option<Bytes> {
    let mut buffer = vec![0; 4096];
    match stream.read(&mut buffer) {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            buffer.truncate(count);
            Some(Bytes::from(buffer))
        }
    }
}

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// TLS towards a server that shows `certificate`.
pub fn tls_client(stream: TcpStream, certificate: &Certificate) -> Box<dyn Stream> {
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from(certificate.der.clone());
    roots.add(root).unwrap();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    Box::new(rustls::StreamOwned::new(tls, stream))
}

/// TLS towards a client; `received` was read already. Gives the stream and its ALPN.
pub fn tls_server(
    stream: TcpStream,
    received: Bytes,
    certificate: &Certificate,
) -> (Box<dyn Stream>, Option<Vec<u8>>) {
    let chain = vec![CertificateDer::from(certificate.der.clone())];
    let key = PrivateKeyDer::try_from(certificate.key.clone()).unwrap();
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
    let mut received = &received[..];
    while !received.is_empty() {
        tls.read_tls(&mut received).unwrap();
        tls.process_new_packets().unwrap();
    }
    let mut stream = stream;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).unwrap();
    }
    let alpn = tls.alpn_protocol().map(<[u8]>::to_vec);
    (Box::new(rustls::StreamOwned::new(tls, stream)), alpn)
}

/// A PostgreSQL server with its own data folder, gone when dropped.
pub struct Server {
    pub port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts a server with these roles (statements) and lines of `pg_hba.conf`.
    pub fn start(roles: &str, hba: &str, certificate: &Certificate) -> Server {
        let programs = Path::new(SERVER_PROGRAMS);
        assert!(
            programs.join("initdb").exists(),
            "no PostgreSQL 15 server here; `make test` needs it (scripts/install server)"
        );
        let folder = tempfile::tempdir().unwrap();
        let account = server_account();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        give(folder.path(), account);
        let run = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.current_dir("/").stdin(Stdio::null());
            if let Some((user, group)) = account {
                command.uid(user).gid(group);
            }
            command
        };
        let made = run("initdb")
            .args(["-N", "-U", "postgres", "-A", "reject", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nfsync = off\nssl = on\n\
             unix_socket_directories = ''\nlog_min_messages = fatal\n"
        );
        write(&data.join("postgresql.auto.conf"), &settings, account);
        write(&data.join("pg_hba.conf"), hba, account);
        write(&data.join("server.crt"), &certificate.pem, account);
        write(&data.join("server.key"), &certificate.key_pem, account);

        let mut single = run("postgres")
            .args(["--single", "-j", "-D"])
            .arg(&data)
            .arg("postgres")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // With -j a statement ends at a semicolon and an empty line.
        let statements = roles.replace('\n', "\n\n");
        let mut input = single.stdin.take().unwrap();
        input.write_all(statements.as_bytes()).unwrap();
        drop(input);
        assert!(single.wait().unwrap().success());

        let child = run("postgres")
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server {
            port,
            child,
            _folder: folder,
        };
        let until = std::time::Instant::now() + PATIENCE;
        // The last line of the pid file says when the server takes connections.
        let ready = || std::fs::read_to_string(data.join("postmaster.pid"));
        while !ready().is_ok_and(|text| text.trim_end().ends_with("ready")) {
            assert!(std::time::Instant::now() < until, "server does not start");
            std::thread::yield_now();
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT: "fast shutdown", children included.
        let _ = Command::new("kill")
            .args(["-INT", &self.child.id().to_string()])
            .status();
        let _ = self.child.wait();
    }
}

/// The server refuses root; then it runs as `postgres`.
fn server_account() -> Option<(u32, u32)> {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout != b"0\n" {
        return None;
    }
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = accounts.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<&str> = line.expect("a user postgres").split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

fn give(path: &Path, account: Option<(u32, u32)>) {
    if let Some((user, group)) = account {
        for path in [path.to_owned(), path.join("data")] {
            std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
        }
    }
}

fn write(path: &PathBuf, text: &str, account: Option<(u32, u32)>) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    if let Some((user, group)) = account {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}
