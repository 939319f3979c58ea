//! The command line's side of the API: small, blocking, one request at a time.
//!
//! ```no_run
//! use std::path::Path;
//! use control::{Client, ControlListen};
//! # use portcullis_control as control;
//!
//! let listen = ControlListen::Unix("/run/portcullis/control.sock".into());
//! let client = Client::new(listen, Path::new("/etc/portcullis/admin-token"))?;
//! for approval in client.approvals(true)?.approvals {
//!     println!("{} {}", approval.id, approval.principal_subject);
//!     client.approve(&approval.id, "carol", "planned clean-up")?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use crate::api::{
    AnswerBody, ApprovalList, ApprovalView, AuditList, HealthView, MintBody, MintedView, Problem,
    TokenList,
};
use crate::config::ControlListen;
use crate::error::ControlError;
use crate::secret_file;

/// Bytes of an answer: an approval of the largest request, shown twice.
const ANSWER_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// One request from connect to the answer's last byte.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why the API did not do what was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The admin token could not be read.
    #[error("admin token: {0}")]
    Token(#[source] ControlError),
    /// Nobody listens there.
    #[error("control plane not reachable at {at}: is the gateway running? ({source})")]
    NotReachable {
        /// The address or path.
        at: String,
        /// What the system said.
        source: io::Error,
    },
    /// It answered with a refusal.
    #[error("{} ({})", .0.detail, .0.status)]
    Refused(Problem),
    /// It took longer than a minute.
    #[error("control plane at {at} gave no answer in time")]
    TimedOut {
        /// The address or path.
        at: String,
    },
    /// What it answered is not of this API.
    #[error("control plane at {at} gave an answer that cannot be read")]
    Broken {
        /// The address or path.
        at: String,
    },
}

impl ClientError {
    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            _ => None,
        }
    }
}

/// A client of one control plane. Blocks; not for use inside an async runtime.
pub struct Client {
    listen: ControlListen,
    token: Zeroizing<String>,
}

impl Client {
    /// A client that reads its token from the gateway's admin token file.
    ///
    /// # Errors
    /// [`ClientError::Token`].
    pub fn new(listen: ControlListen, admin_token_file: &Path) -> Result<Self, ClientError> {
        let token = secret_file::read(admin_token_file).map_err(ClientError::Token)?;
        Ok(Self { listen, token })
    }

    /// Approvals, newest first, up to 500; only those that wait, or all.
    ///
    /// # Errors
    /// See [`ClientError`]; so for all that follow.
    pub fn approvals(&self, pending_only: bool) -> Result<ApprovalList, ClientError> {
        let filter = if pending_only { "&state=pending" } else { "" };
        self.get(&format!("/api/v1/approvals?limit=500{filter}"))
    }

    /// One approval, whole.
    ///
    /// # Errors
    /// 404 if there is none.
    pub fn approval(&self, id: &str) -> Result<ApprovalView, ClientError> {
        self.get(&format!("/api/v1/approvals/{}", segment(id)))
    }

    /// Yes.
    ///
    /// # Errors
    /// 403 for the requester, 404, 409 if it does not wait any more.
    pub fn approve(&self, id: &str, by: &str, reason: &str) -> Result<ApprovalView, ClientError> {
        self.answer(id, "approve", by, reason)
    }

    /// No; or takes back a yes that was not used yet.
    ///
    /// # Errors
    /// 404, 409 if it has ended.
    pub fn deny(&self, id: &str, by: &str, reason: &str) -> Result<ApprovalView, ClientError> {
        self.answer(id, "deny", by, reason)
    }

    /// Makes a gateway token.
    ///
    /// # Errors
    /// 400 if a value is out of range.
    pub fn mint(&self, wish: &MintBody) -> Result<MintedView, ClientError> {
        self.post("/api/v1/tokens", wish)
    }

    /// All gateway tokens, without secrets.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn tokens(&self) -> Result<TokenList, ClientError> {
        self.get("/api/v1/tokens")
    }

    /// Takes a gateway token back.
    ///
    /// # Errors
    /// 404 if there is none in force.
    pub fn revoke(&self, id: &str) -> Result<(), ClientError> {
        let path = format!("/api/v1/tokens/{}", segment(id));
        self.call(Method::DELETE, &path, None).map(|_| ())
    }

    /// Lines of the audit trail after a number, up to 1000.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn audit(&self, after: u64) -> Result<AuditList, ClientError> {
        self.get(&format!("/api/v1/audit?limit=1000&after={after}"))
    }

    /// The gateway's health, also when it is failing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn health(&self) -> Result<HealthView, ClientError> {
        let (_, body) = self.exchange(Method::GET, "/healthz", None)?;
        self.read(&body)
    }

    /// The text of `/metrics`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn metrics(&self) -> Result<String, ClientError> {
        let body = self.call(Method::GET, "/metrics", None)?;
        String::from_utf8(body.to_vec()).map_err(|_| ClientError::Broken { at: self.at() })
    }

    /// The API's OpenAPI description.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.get("/api/v1/openapi.json")
    }

    fn answer(
        &self,
        id: &str,
        verb: &str,
        by: &str,
        reason: &str,
    ) -> Result<ApprovalView, ClientError> {
        let body = AnswerBody {
            by: by.to_owned(),
            reason: reason.to_owned(),
        };
        self.post(&format!("/api/v1/approvals/{}/{verb}", segment(id)), &body)
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.call(Method::GET, path, None)?;
        self.read(&body)
    }

    fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|_| ClientError::Broken { at: self.at() })?;
        let answer = self.call(Method::POST, path, Some(body))?;
        self.read(&answer)
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|_| ClientError::Broken { at: self.at() })
    }

    fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Bytes, ClientError> {
        let (status, body) = self.exchange(method, path, body)?;
        if status.is_success() {
            return Ok(body);
        }
        Err(ClientError::Refused(self.read(&body)?))
    }

    fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let broken = || ClientError::Broken { at: self.at() };
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", self.token.as_str()))
            .map_err(|_| broken())?;
        authorization.set_sensitive(true);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|_| broken())?;
        let not_reachable = |source| ClientError::NotReachable {
            at: self.at(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(not_reachable)?;
        let exchanged = runtime.block_on(async {
            tokio::time::timeout(TIMEOUT, async {
                match &self.listen {
                    ControlListen::Unix(path) => {
                        let stream = UnixStream::connect(path).await.map_err(not_reachable)?;
                        send(stream, request).await.ok_or_else(broken)
                    }
                    ControlListen::Loopback(address) => {
                        let stream = TcpStream::connect(address).await.map_err(not_reachable)?;
                        send(stream, request).await.ok_or_else(broken)
                    }
                }
            })
            .await
        });
        exchanged.unwrap_or_else(|_| Err(ClientError::TimedOut { at: self.at() }))
    }

    fn at(&self) -> String {
        match &self.listen {
            ControlListen::Unix(path) => path.display().to_string(),
            ControlListen::Loopback(address) => address.to_string(),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Option<(StatusCode, Bytes)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let answer = async {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .ok()?;
        Some((status, body.to_bytes()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        done = &mut answer => done,
        _ = &mut connection => answer.await,
    }
}

/// A path segment: what is not plainly safe is percent-encoded.
fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}
