//! Fetching a document for the gateway: `GET`, no redirects, bounded in bytes
//! and time, a few at a time.
//!
//! The URL is the operator's. `https` is verified against the system's
//! authorities (and those handed in); `http` is spoken to loopback addresses
//! only, where a sidecar or a test serves the document.

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::handle::{FetchError, FetchLimits};

/// Fetches under way at a time; one more is refused.
const FETCHES_MAX: usize = 16;

/// Bytes of a URL.
const URL_BYTES_MAX: usize = 4096;

type Answer = Box<dyn FnOnce(Result<Vec<u8>, FetchError>) + Send>;

pub(crate) struct Fetcher {
    slots: Arc<Semaphore>,
}

impl Default for Fetcher {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(FETCHES_MAX)),
        }
    }
}

impl Fetcher {
    /// Starts a fetch on the present runtime; `answer` is called once.
    pub(crate) fn start(&self, url: String, limits: FetchLimits, answer: Answer) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            return answer(Err(FetchError::Unavailable));
        };
        tokio::spawn(async move {
            let timed = tokio::time::timeout(limits.timeout, fetch(&url, &limits)).await;
            drop(slot);
            answer(timed.unwrap_or(Err(FetchError::TimedOut)));
        });
    }
}

async fn fetch(url: &str, limits: &FetchLimits) -> Result<Vec<u8>, FetchError> {
    let uri: Uri = match url.len() {
        0..=URL_BYTES_MAX => url.parse().map_err(|_| FetchError::Url)?,
        _ => return Err(FetchError::Url),
    };
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(FetchError::Url),
    };
    let authority = uri.authority().ok_or(FetchError::Url)?;
    // A user name in a URL is a secret in the wrong place.
    if authority.as_str().contains('@') {
        return Err(FetchError::Url);
    }
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let port = authority
        .port_u16()
        .unwrap_or(if secure { 443 } else { 80 });
    let stream = connect(&host, port, !secure).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .header(
            USER_AGENT,
            concat!("portcullis/", env!("CARGO_PKG_VERSION")),
        )
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url)?;
    if secure {
        let name = ServerName::try_from(host).map_err(|_| FetchError::Url)?;
        let connector = TlsConnector::from(Arc::new(tls(limits)?));
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| unreachable(&error))?;
        exchange(stream, request, limits).await
    } else {
        exchange(stream, request, limits).await
    }
}

fn unreachable(error: &dyn std::error::Error) -> FetchError {
    FetchError::Connect {
        what: error.to_string(),
    }
}

async fn connect(host: &str, port: u16, loopback_only: bool) -> Result<TcpStream, FetchError> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port))
        .await
        .map_err(|e| unreachable(&e))?
        .collect();
    // The address that was looked at is the one that is used.
    if loopback_only && !found.iter().all(|address| address.ip().is_loopback()) {
        return Err(FetchError::Url);
    }
    TcpStream::connect(found.as_slice())
        .await
        .map_err(|e| unreachable(&e))
}

fn tls(limits: &FetchLimits) -> Result<ClientConfig, FetchError> {
    let mut roots = RootCertStore::empty();
    // Of the system's, those that do not parse are passed over.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in CertificateDer::pem_slice_iter(&limits.extra_roots_pem) {
        let certificate = certificate.map_err(|e| unreachable(&e))?;
        roots.add(certificate).map_err(|e| unreachable(&e))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unreachable(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Empty<Bytes>>,
    limits: &FetchLimits,
) -> Result<Vec<u8>, FetchError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| FetchError::Broken)?;
    // Driven here, so that giving up the fetch closes the connection.
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|_| FetchError::Broken)?;
        if response.status() != hyper::StatusCode::OK {
            return Err(FetchError::Status {
                status: response.status().as_u16(),
            });
        }
        let bytes_max = limits.body_bytes_max;
        match Limited::new(response.into_body(), bytes_max)
            .collect()
            .await
        {
            Ok(body) => Ok(body.to_bytes().to_vec()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge { bytes_max }),
            Err(_) => Err(FetchError::Broken),
        }
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        done = &mut answer => done,
        _ = &mut connection => answer.await,
    }
}
