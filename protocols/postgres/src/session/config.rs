//! Limits of one session, each with the reason for its default.

/// What a [`super::Session`] is made with. All limits are in bytes or counts.
///
/// `Debug` leaves the nonce seed out.
#[derive(Clone)]
pub struct SessionConfig {
    /// Shown in refusals and in the text that the server logs for a refused message.
    /// ASCII letters, digits and `-_.:` survive in the latter; the rest becomes `_`.
    pub session_label: String,
    /// Secret from which the nonces of refusals are derived; fresh per session.
    pub nonce_seed: [u8; 16],
    /// Largest body of a Query, Parse or FunctionCall. A larger one is never held: its
    /// bytes are swallowed as they come and a refusal (54000) takes its place.
    pub unit_bytes_max: usize,
    /// Largest body of a Bind that is held to be decided. A larger one is decided by its
    /// names alone and streamed, if `binds_read` is false, and otherwise refused (54000).
    pub bind_bytes_held_max: usize,
    /// True when a rule (or a check for masks in requests) reads bind values.
    pub binds_read: bool,
    /// Longest name of a statement or portal. The server cuts names at 63 bytes, so that
    /// two long ones can be one there and two here: longer ones are refused (42622).
    pub name_bytes_max: usize,
    /// Largest body of a DataRow or CopyData that is held whole to be masked; larger
    /// ones are streamed, with fill of the same length.
    pub value_bytes_held_max: usize,
    /// Largest body of any other backend message; a larger one ends the session.
    pub message_bytes_max: usize,
    /// Frontend messages that wait for an answer. At this count the agent is not read
    /// until answers come. At least [`PENDING_MIN`].
    pub pending_max: usize,
    /// Agent bytes that wait behind an undecided unit. At this count the agent is not
    /// read; at twice this count plus [`HELD_SLACK_BYTES`] the session ends, since the
    /// caller then ignores [`super::Session::wants_input`].
    pub held_bytes_max: usize,
    /// Bytes of released rows (and of COPY data of the agent) that are handed to the
    /// record per statement.
    pub row_record_bytes_max: usize,
    /// True when the session starts with `client_encoding` UTF8. Followed from
    /// ParameterStatus afterwards; under any other encoding refusals are plain ASCII.
    pub client_encoding_utf8: bool,
    /// The transaction status of the ReadyForQuery that ended the login.
    pub transaction_status: u8,
}

/// Fewest outstanding messages a session must allow. The server sends nothing before
/// Sync or Flush until its 8 KiB buffer is full, which 1639 answers of five bytes do;
/// a lower limit could wait for answers that wait for us.
pub const PENDING_MIN: usize = 4096;

/// One read of the connection that may still come after
/// [`super::Session::wants_input`] said no.
pub const HELD_SLACK_BYTES: usize = 1 << 20;

impl SessionConfig {
    /// The defaults, for a session of this label and nonce seed.
    #[must_use]
    pub fn new(session_label: impl Into<String>, nonce_seed: [u8; 16]) -> SessionConfig {
        SessionConfig {
            session_label: session_label.into(),
            nonce_seed,
            unit_bytes_max: (1 << 20) + 4096,
            bind_bytes_held_max: 1 << 20,
            binds_read: true,
            name_bytes_max: 63,
            value_bytes_held_max: 256 << 10,
            message_bytes_max: 16 << 20,
            pending_max: 100_000,
            held_bytes_max: 1 << 20,
            row_record_bytes_max: 64 << 10,
            client_encoding_utf8: false,
            transaction_status: b'I',
        }
    }
}

impl std::fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionConfig")
            .field("session_label", &self.session_label)
            .field("unit_bytes_max", &self.unit_bytes_max)
            .field("bind_bytes_held_max", &self.bind_bytes_held_max)
            .field("binds_read", &self.binds_read)
            .field("value_bytes_held_max", &self.value_bytes_held_max)
            .field("pending_max", &self.pending_max)
            .field("held_bytes_max", &self.held_bytes_max)
            .finish_non_exhaustive()
    }
}
