//! TLS over plain connections: handshakes, bulk, ends, on the ring and simulated.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_engine::{
    Conn, End, ListenOptions, Listener, TlsError, connect, now, sim, spawn, yield_now,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::common::{on_shard, pattern};

const LONG: Duration = Duration::from_secs(20);

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    certificate: CertificateDer<'static>,
}

fn configs() -> Configs {
    let made = rcgen::generate_simple_self_signed(vec!["db.example".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"postgresql".to_vec()];
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"postgresql".to_vec()];
    Configs {
        server: Arc::new(server),
        client: Arc::new(client),
        certificate,
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("db.example").unwrap()
}

async fn pair() -> (Conn, Conn) {
    let listener =
        Listener::bind("127.0.0.1:0".parse().unwrap(), ListenOptions::default()).unwrap();
    let dial = spawn(connect(listener.local_addr(), now() + LONG));
    let (far, _) = listener.accept().await.unwrap();
    (dial.await.unwrap().unwrap(), far)
}

async fn secured() -> (Conn, Conn) {
    let configs = configs();
    let (near, far) = pair().await;
    let server = spawn(far.tls_server(configs.server, Bytes::new()));
    let (near, info) = near.tls_client(configs.client, name()).await.unwrap();
    assert_eq!(info.alpn.as_deref(), Some(&b"postgresql"[..]));
    assert_eq!(info.peer_certificates, [configs.certificate]);
    let (far, info) = server.await.unwrap().unwrap();
    assert_eq!(info.server_name.as_deref(), Some("db.example"));
    assert_eq!(info.version, Some(rustls::ProtocolVersion::TLSv1_3));
    assert!(info.cipher_suite.is_some() && info.peer_certificates.is_empty());
    (near, far)
}

/// `total` bytes there and back, in odd pieces one way and in one piece the other.
async fn there_and_back(total: usize) {
    let (near, far) = secured().await;
    let server = spawn(async move {
        let (mut reader, writer) = far.split();
        let mut all = Vec::with_capacity(total);
        loop {
            match reader.recv().await {
                Ok(bytes) => all.extend_from_slice(&bytes),
                Err(end) => {
                    assert_eq!(end, End::Eof);
                    break;
                }
            }
        }
        writer.queue(Bytes::from(all));
        writer.finish();
        writer.flushed().await.unwrap();
    });
    let (mut reader, writer) = near.split();
    let data = Bytes::from(pattern(8, total));
    let mut at = 0;
    for size in [1, 5, 64, 4096, 16_384, 16_385, 50_000].into_iter().cycle() {
        let end = total.min(at + size);
        writer.queue(data.slice(at..end));
        at = end;
        if writer.is_over_high_mark() {
            writer.drained().await.unwrap();
        }
        if at == total {
            break;
        }
    }
    writer.finish();
    let mut got = Vec::with_capacity(total);
    loop {
        match reader.recv().await {
            Ok(bytes) => got.extend_from_slice(&bytes),
            Err(end) => {
                assert_eq!(end, End::Eof);
                break;
            }
        }
    }
    assert!(got == data, "bytes differ");
    server.await.unwrap();
}

#[test]
fn forty_megabytes_in_one_message_come_through_unchanged() {
    on_shard(|| there_and_back(40 * 1024 * 1024));
}

#[test]
fn tls_works_over_a_network_that_cuts_anywhere() {
    for seed in 0..8 {
        sim::run(sim::SimConfig::from_seed(seed), || there_and_back(150_000));
    }
}

#[test]
fn tls_starts_after_an_exchange_in_the_clear() {
    on_shard(|| async {
        let configs = configs();
        let (near, far) = pair().await;
        let server = spawn(async move {
            let (mut reader, writer) = far.split();
            assert_eq!(reader.recv().await.unwrap(), "start TLS?");
            writer.queue(Bytes::from_static(b"S"));
            let conn = Conn::from_parts(reader, writer);
            let (conn, _) = conn.tls_server(configs.server, Bytes::new()).await.unwrap();
            let (mut reader, writer) = conn.split();
            writer.queue(reader.recv().await.unwrap());
        });
        let (mut reader, writer) = near.split();
        writer.queue(Bytes::from_static(b"start TLS?"));
        assert_eq!(reader.recv().await.unwrap(), "S");
        let conn = Conn::from_parts(reader, writer);
        let (conn, _) = conn.tls_client(configs.client, name()).await.unwrap();
        let (mut reader, writer) = conn.split();
        writer.queue(Bytes::from_static(b"secret"));
        assert_eq!(reader.recv().await.unwrap(), "secret");
        assert_eq!(reader.recv().await, Err(End::Eof));
        server.await.unwrap();
    });
}

#[test]
fn a_handshake_begun_by_another_reader_goes_on_with_its_bytes() {
    on_shard(|| async {
        let configs = configs();
        let (near, far) = pair().await;
        let client = spawn(near.tls_client(configs.client, name()));
        let (mut reader, writer) = far.split();
        let hello = reader.recv().await.unwrap();
        // First half handed over, second half put back.
        let cut = hello.len() / 2;
        reader.unread(hello.slice(cut..));
        let far = Conn::from_parts(reader, writer);
        far.tls_server(configs.server, hello.slice(..cut))
            .await
            .unwrap();
        client.await.unwrap().unwrap();
    });
}

#[test]
fn a_wrong_name_is_refused_and_the_server_hears_the_alert() {
    on_shard(|| async {
        let configs = configs();
        let (near, far) = pair().await;
        let server = spawn(far.tls_server(configs.server, Bytes::new()));
        let other = ServerName::try_from("elsewhere.example").unwrap();
        let refused = near.tls_client(configs.client, other).await;
        assert!(matches!(
            refused.map(drop),
            Err(TlsError::Rustls(rustls::Error::InvalidCertificate(_)))
        ));
        let heard = server.await.unwrap().map(drop);
        assert!(
            matches!(
                heard,
                Err(TlsError::Rustls(rustls::Error::AlertReceived(_)))
            ),
            "{heard:?}"
        );
    });
}

#[test]
fn clear_bytes_in_place_of_a_handshake_fail_it() {
    on_shard(|| async {
        let (near, far) = pair().await;
        let server = spawn(far.tls_server(configs().server, Bytes::new()));
        let (mut reader, writer) = near.split();
        writer.queue(Bytes::from_static(b"SELECT 1; this is not a TLS record"));
        assert!(matches!(
            server.await.unwrap().map(drop),
            Err(TlsError::Rustls(_))
        ));
        // The alert, then the end.
        assert!(reader.recv().await.is_ok());
    });
}

#[test]
fn an_end_without_close_notify_is_not_taken_for_an_end() {
    on_shard(|| async {
        let configs = configs();
        let (near, far) = pair().await;
        let (mut raw, raw_writer) = near.split();
        let server = spawn(far.tls_server(configs.server, Bytes::new()));
        // A client by hand, which then closes the socket under TLS.
        let mut client = rustls::ClientConnection::new(configs.client, name()).unwrap();
        loop {
            let mut out = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut out).unwrap();
            }
            raw_writer.queue(Bytes::from(out));
            if !client.is_handshaking() {
                break;
            }
            let bytes = raw.recv().await.unwrap();
            let mut unread = &bytes[..];
            while !unread.is_empty() {
                client.read_tls(&mut unread).unwrap();
                client.process_new_packets().unwrap();
            }
        }
        let (far, _) = server.await.unwrap().unwrap();
        raw_writer.finish();
        let (mut reader, _writer) = far.split();
        assert!(matches!(reader.recv().await, Err(End::Tls(_))));
    });
}

#[test]
fn an_end_in_the_middle_of_a_handshake_is_told() {
    on_shard(|| async {
        let (near, far) = pair().await;
        let server = spawn(far.tls_server(configs().server, Bytes::new()));
        yield_now().await;
        drop(near);
        assert!(matches!(
            server.await.unwrap().map(drop),
            Err(TlsError::End(End::Eof))
        ));
    });
}
