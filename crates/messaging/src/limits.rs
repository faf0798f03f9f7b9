//! Every limit of the protocol engine, with its unit, and the named leniencies. Strict is the default.

/// What a peer may send at most. A limit that is passed ends the message with the status named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest method; a longer one is answered 501 (9112-3-02). The longest registered one has 17 octets.
    pub method_bytes_max: usize,
    /// Longest request target; a longer one is answered 414. RFC 9112 §3 recommends at least 8000 for the line.
    pub target_bytes_max: usize,
    /// Longest reason phrase of a response.
    pub reason_bytes_max: usize,
    /// Size of a header section, in octets as received; 431 beyond.
    pub field_section_bytes_max: usize,
    /// Number of field lines in a header section; 431 beyond.
    pub field_lines_max: usize,
    /// Empty lines skipped before a request line (9112-2.2-07).
    pub empty_lines_max: u8,
    /// All chunk extensions of one message together (9112-7.1.1-R1, fault D19).
    pub chunk_extension_bytes_max: usize,
    /// Size of a trailer section (fault D20).
    pub trailer_section_bytes_max: usize,
    /// Number of trailer field lines (fault D20).
    pub trailer_lines_max: usize,
    /// Octets of chunk framing free of charge, before [`Limits::chunk_overhead_ratio_max`] counts (fault D18).
    pub chunk_overhead_free_bytes: u64,
    /// Octets of chunk framing allowed per octet of data (fault D18).
    pub chunk_overhead_ratio_max: u64,
    /// Octets that a `gzip` transfer coding may always expand to, before the ratio counts (fault G17).
    pub gzip_free_bytes: u64,
    /// Expansion of a `gzip` transfer coding beyond which it is taken for a bomb.
    pub gzip_ratio_max: u64,
    /// Interim (1xx) responses to one request that a client bears (fault R07).
    pub interim_responses_max: u32,
    /// Octets of interim responses to one request (fault R07).
    pub interim_bytes_max: usize,
    /// Requests received and not yet answered on one connection; reading stops there (faults D23, D24).
    pub pipelined_requests_max: usize,
    /// Requests served on one connection before the server closes it; 0 for no limit.
    pub requests_per_connection_max: u32,
    /// How long an idle connection is kept, as told to clients that ask (`Keep-Alive: timeout=`). The driver
    /// keeps the promise.
    pub idle_timeout_secs: u32,
    /// Content of an answered request that is read away so that the connection can go on (9112-9.3-05).
    pub drain_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            method_bytes_max: 64,
            target_bytes_max: 8 * 1024,
            reason_bytes_max: 1024,
            field_section_bytes_max: 32 * 1024,
            field_lines_max: 100,
            empty_lines_max: 1,
            chunk_extension_bytes_max: 4 * 1024,
            trailer_section_bytes_max: 8 * 1024,
            trailer_lines_max: 32,
            chunk_overhead_free_bytes: 64 * 1024,
            chunk_overhead_ratio_max: 16,
            gzip_free_bytes: 1024 * 1024,
            gzip_ratio_max: 200,
            interim_responses_max: 32,
            interim_bytes_max: 64 * 1024,
            pipelined_requests_max: 64,
            requests_per_connection_max: 0,
            idle_timeout_secs: 60,
            drain_bytes_max: 256 * 1024,
        }
    }
}

/// Named leniencies and opt-ins. All off by default, except the `gzip` transfer coding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Speak HTTP/0.9: accept (as a client: understand) messages without head.
    pub http09: bool,
    /// Keep field names that read like a framing or connection field once `_` is taken for `-` (fault S17).
    /// By default such lines are dropped.
    pub keep_underscore_names: bool,
    /// Understand the `gzip` transfer coding beside `chunked`, and send it to those whose TE asks for it.
    pub transfer_gzip: bool,
    /// Client: ask for and decode obs-fold in responses as a user agent does (9112-5.2-04). A proxy turns it
    /// into 502 by leaving this off.
    pub unfold_responses: bool,
    /// Client: take every server for one that speaks HTTP/1.1 before it has said so, so that content of unknown
    /// length can go out first (9112-6.1-10 calls this configuration).
    pub assume_http11: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            http09: false,
            keep_underscore_names: false,
            transfer_gzip: true,
            unfold_responses: true,
            assume_http11: false,
        }
    }
}

/// Limits and options of a connection, shared by many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// What a peer may send at most.
    pub limits: Limits,
    /// Leniencies and opt-ins.
    pub options: Options,
}
