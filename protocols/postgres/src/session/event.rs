//! What a session gives out: writes, questions, events for the record, its end.

use bytes::Bytes;
use thiserror::Error;

use super::unit::{Unit, UnitId};
use crate::error::WireError;

/// One of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The agent's.
    Downstream,
    /// The server's.
    Upstream,
}

/// What [`super::Session::poll_output`] returns.
///
/// Events and questions come before writes, so that what is recorded of a change is
/// handed over before its bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write these bytes to this side, in order.
    Write {
        /// Where to.
        side: Side,
        /// Whole or partial messages; never empty.
        bytes: Bytes,
    },
    /// Answer with [`super::Session::handle_decision`], now or later. At most one is
    /// open at a time.
    Decide {
        /// Give it back with the verdict.
        id: UnitId,
        /// The request.
        unit: Unit,
    },
    /// Something happened that the record wants.
    Event(Event),
    /// Flush what was written, then close both connections. The last output.
    Close(CloseReason),
}

/// Direction of a COPY, as seen from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyDirection {
    /// From the agent to the server.
    In,
    /// From the server to the agent.
    Out,
}

/// Events for the record and the gateway's own state. All content of the server in them
/// is masked, as it was released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request that needs no decision, or an Execute that was decided, went to the server.
    Passed {
        /// Its id.
        id: UnitId,
        /// One of Execute, Describe, Close, Sync, CopyDone, CopyFail, Terminate.
        unit: Unit,
    },
    /// The session refused a request by itself (too large, name too long).
    Refused {
        /// Its id.
        id: UnitId,
        /// Type byte of the message.
        tag: u8,
        /// Bytes of its body.
        bytes: u64,
        /// What the agent reads.
        sqlstate: [u8; 5],
    },
    /// What became of a request. A Query gives one per statement that was run. Id 0: a
    /// FATAL error while nothing was outstanding.
    Answered {
        /// The request.
        id: UnitId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Messages that carry data went to the agent: RowDescription, DataRow, CopyData,
    /// FunctionCallResponse, whole messages as released.
    Rows {
        /// The request they answer.
        id: UnitId,
        /// The messages, up to what is recorded per statement.
        frames: Bytes,
        /// True once, when the limit is reached: no more will come for this statement.
        truncated: bool,
    },
    /// COPY data of the agent went to the server. Not masked: it is the agent's own.
    CopyInData {
        /// The last request before it.
        id: UnitId,
        /// CopyData messages, up to what is recorded per statement.
        frames: Bytes,
        /// True once, when the limit is reached.
        truncated: bool,
    },
    /// A COPY began.
    CopyStarted {
        /// The request it belongs to.
        id: UnitId,
        /// Its direction.
        direction: CopyDirection,
        /// Its overall format.
        binary: bool,
    },
    /// A COPY ended, well or not (the outcome says which).
    CopyEnded {
        /// The request it belongs to.
        id: UnitId,
        /// Its direction.
        direction: CopyDirection,
        /// Bytes of CopyData bodies as received.
        bytes: u64,
    },
    /// The server is ready; `status` is its transaction status, `I`, `T` or `E`.
    ReadyForQuery {
        /// The status.
        status: u8,
    },
    /// A setting changed (masked as released).
    ParameterStatus {
        /// Its name.
        name: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// A NoticeResponse, masked, header included.
    Notice {
        /// The message.
        frame: Bytes,
    },
    /// A NotificationResponse, masked.
    Notification {
        /// Backend that notified.
        process_id: u32,
        /// Channel.
        channel: Bytes,
        /// Payload.
        payload: Bytes,
    },
    /// Values were changed on their way to the agent. What kinds they were the content's
    /// implementer knows. Streamed values are not counted here.
    Masked {
        /// The request that the values answer; `None` outside of any.
        id: Option<UnitId>,
        /// Values (fields, columns, names) that were changed since the last such event.
        values: u64,
    },
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It, or one statement of it, was run. The command tag, empty for messages that have
    /// none and for empty queries.
    Completed {
        /// As released.
        tag: Bytes,
    },
    /// The server refused or aborted it.
    Failed {
        /// The server's SQLSTATE; `XX000` when it gave none of five bytes.
        sqlstate: [u8; 5],
        /// The ErrorResponse as released, header included.
        frame: Bytes,
    },
    /// A refusal of ours reached the agent through the server's own answer.
    Refused {
        /// The refusal's SQLSTATE.
        sqlstate: [u8; 5],
    },
    /// The server discarded it, since an earlier request failed and no Sync came between.
    Skipped,
    /// Execute stopped at its row limit.
    Suspended,
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The agent sent Terminate.
    AgentTerminated,
    /// The agent's connection ended without Terminate.
    AgentClosed,
    /// The server's connection ended.
    TargetClosed,
    /// The gateway asked for it.
    Ended,
    /// Something went wrong.
    Failed(SessionError),
}

/// What ends a session. Returned once by the call that met it; the session is then
/// closing, and its outputs (an ErrorResponse where one can still be written, the close)
/// are to be drained as always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The agent sent something that the protocol does not know. Never forwarded.
    #[error("agent broke the protocol in a message of type {tag:#04x}: {error}")]
    AgentProtocol {
        /// Type byte of the message, 0 where it is not known.
        tag: u8,
        /// What was wrong.
        error: WireError,
    },
    /// The server sent something that the protocol does not know. Never forwarded.
    #[error("target broke the protocol in a message of type {tag:#04x}: {error}")]
    TargetProtocol {
        /// Type byte of the message, 0 where it is not known.
        tag: u8,
        /// What was wrong.
        error: WireError,
    },
    /// The server sent a message that does not answer what was asked: the place in its
    /// stream is lost. Never forwarded.
    #[error("target sent an unexpected message of type {tag:#04x}")]
    TargetUnexpected {
        /// Type byte.
        tag: u8,
    },
    /// The server asked for a replication stream, which is not relayed.
    #[error("target switched to COPY BOTH")]
    CopyBoth,
    /// A verdict for a unit that is not the one being decided: our own mistake.
    #[error("verdict for a unit that is not being decided")]
    UnknownUnit,
    /// The caller went on feeding a side that does not want input.
    #[error("agent bytes held behind an undecided request exceed their limit")]
    HeldTooMuch,
    /// Fill of the same length had another length: a mistake in the masking.
    #[error("mask of the same length has another length")]
    MaskLength,
    /// A message of our own could not be built.
    #[error("own message could not be built: {0}")]
    Encode(WireError),
}
