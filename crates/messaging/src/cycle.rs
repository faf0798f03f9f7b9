//! THE TABLE: how the two sides of one exchange may step, whoever we are and whatever the octets look like.
//! Both machines move through it and through nothing else; a test prints all of it.
//!
//! A request and its response overlap freely (an early response is an ordinary thing), so each side has its own
//! state and only a new cycle ties them together.

/// Who sends: the client its requests, the server its responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The sender of requests.
    Client,
    /// The sender of responses.
    Server,
}

/// Where a side is in the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Between messages.
    #[default]
    Idle,
    /// Server: a request came, no final response head has gone out.
    SendResponse,
    /// The head is out, the body is not complete.
    SendBody,
    /// The message is complete.
    Done,
    /// The message is complete and there will be no other: close when the other side is done.
    MustClose,
    /// Client: the request is complete and offered to switch protocols; nothing more until the answer.
    MightSwitch,
    /// The connection speaks another protocol now.
    Switched,
    /// This side closed in order.
    Closed,
    /// This side broke the protocol or off.
    Error,
}

/// What happens to a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A request head: the client's own step, and what makes the server owe a response.
    RequestHead,
    /// An interim response (not 101).
    Interim,
    /// A final response head.
    FinalHead,
    /// Some content.
    Data,
    /// The end of the body.
    End,
    /// The end of the body of a request that offers a switch.
    EndOfferingSwitch,
    /// The switch was accepted (101, or 2xx to CONNECT).
    Switch,
    /// The switch was declined by an ordinary final response.
    SwitchDeclined,
    /// Persistence is over after this message.
    NoMore,
    /// A new cycle begins: both sides are done and the connection persists.
    Restart,
    /// The sender closed its direction.
    Close,
    /// The sender broke the protocol, or the connection broke.
    Fail,
}

/// All sides, for printing the table.
pub const SIDES: [Side; 2] = [Side::Client, Side::Server];
/// All states, for printing the table.
pub const STATES: [State; 9] = [
    State::Idle,
    State::SendResponse,
    State::SendBody,
    State::Done,
    State::MustClose,
    State::MightSwitch,
    State::Switched,
    State::Closed,
    State::Error,
];
/// All steps, for printing the table.
pub const STEPS: [Step; 12] = [
    Step::RequestHead,
    Step::Interim,
    Step::FinalHead,
    Step::Data,
    Step::End,
    Step::EndOfferingSwitch,
    Step::Switch,
    Step::SwitchDeclined,
    Step::NoMore,
    Step::Restart,
    Step::Close,
    Step::Fail,
];

/// The state after a step; `None` where the step is not allowed.
#[inline]
pub fn next(side: Side, state: State, step: Step) -> Option<State> {
    use State::*;
    Some(match (side, state, step) {
        // An error is final, and may come at any time.
        (_, Error, _) => return None,
        (_, _, Step::Fail) => Error,

        (Side::Client, Idle, Step::RequestHead) => SendBody,
        (Side::Client, SendBody, Step::Data) => SendBody,
        (Side::Client, SendBody, Step::End) => Done,
        (Side::Client, SendBody, Step::EndOfferingSwitch) => MightSwitch,
        (Side::Client, MightSwitch, Step::Switch) => Switched,
        (Side::Client, MightSwitch, Step::SwitchDeclined) => Done,
        // An early final response declines the switch before the request is complete.
        (Side::Client, SendBody, Step::SwitchDeclined) => SendBody,

        (Side::Server, Idle, Step::RequestHead) => SendResponse,
        (Side::Server, SendResponse, Step::Interim) => SendResponse,
        (Side::Server, SendResponse, Step::FinalHead) => SendBody,
        (Side::Server, SendResponse, Step::Switch) => Switched,
        (Side::Server, SendBody, Step::Data) => SendBody,
        (Side::Server, SendBody, Step::End) => Done,
        // A server may answer a request whose head it could not read (400, 408).
        (Side::Server, Idle, Step::FinalHead) => SendBody,

        (_, Done, Step::Restart) => Idle,
        (_, Done, Step::NoMore) => MustClose,
        (_, MustClose, Step::NoMore) => MustClose,
        (_, Idle | Done | MustClose | Switched, Step::Close) => Closed,
        (_, Closed, Step::Close) => Closed,
        // A client may half-close once its request is out, and still get its answer; before that the message
        // is cut, and that is a failure.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    /// Prints the whole table and compares it with the reviewed copy. `UPDATE=1` rewrites that.
    #[test]
    fn the_table_is_as_reviewed() {
        let mut text = String::from(
            "# The exchange cycle. Generated from `cycle.rs`; `UPDATE=1 cargo test -p eleven-messaging` rewrites it.\n",
        );
        for side in SIDES {
            for state in STATES {
                for step in STEPS {
                    if let Some(next) = next(side, state, step) {
                        writeln!(text, "{side:?}: {state:?} --{step:?}--> {next:?}").unwrap();
                    }
                }
            }
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cycle.txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(path).unwrap_or_default(), "run with UPDATE=1 and review");
    }

    /// No step leads out of an error, and every state can fail.
    #[test]
    fn errors_are_final() {
        for side in SIDES {
            for step in STEPS {
                assert_eq!(next(side, State::Error, step), None);
            }
            for state in STATES.into_iter().filter(|&s| s != State::Error) {
                assert_eq!(next(side, state, Step::Fail), Some(State::Error));
            }
        }
    }
}
