//! Status codes (RFC 9110 §15): one table with phrase and what a cache may assume. A code is any three-digit
//! number from 100 to 599; unknown ones count as the x00 of their class (RFC 9110 §15).

/// A status code between 100 and 599. RFC 9110 §15 calls codes outside that range invalid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

/// The first digit of a status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// 1xx: interim response.
    Informational,
    /// 2xx.
    Successful,
    /// 3xx.
    Redirection,
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
}

macro_rules! codes {
    ($($code:literal $name:ident $phrase:literal $heuristic:literal $section:literal;)*) => {
        impl Status {
            $(#[doc = concat!("`", stringify!($code), " ", $phrase, "` (", $section, ").")]
            pub const $name: Status = Status($code);)*

            /// Every registered code this system knows, in order.
            pub const ALL: &'static [Status] = &[$(Status($code)),*];

            /// The registered reason phrase, or an empty string.
            pub fn phrase(self) -> &'static str {
                match self.0 { $($code => $phrase,)* _ => "" }
            }

            /// Whether the status is understood, and heuristically cacheable (RFC 9110 §15.1).
            pub fn is_heuristically_cacheable(self) -> bool {
                match self.0 { $($code => $heuristic,)* _ => false }
            }

            /// Whether the code is one of the table. `must-understand` (RFC 9111 §5.2.2.3) asks for this.
            pub fn is_understood(self) -> bool {
                matches!(self.0, $($code)|*)
            }

            /// The status line of an HTTP/1.1 response, with its CRLF; built at compile time for known codes.
            pub fn line(self) -> Option<&'static [u8]> {
                match self.0 { $($code => Some(concat!("HTTP/1.1 ", $code, " ", $phrase, "\r\n").as_bytes()),)* _ => None }
            }
        }
    };
}

codes! {
    100 CONTINUE "Continue" false "RFC 9110 §15.2.1";
    101 SWITCHING_PROTOCOLS "Switching Protocols" false "RFC 9110 §15.2.2";
    102 PROCESSING "Processing" false "RFC 2518";
    103 EARLY_HINTS "Early Hints" false "RFC 8297";
    200 OK "OK" true "RFC 9110 §15.3.1";
    201 CREATED "Created" false "RFC 9110 §15.3.2";
    202 ACCEPTED "Accepted" false "RFC 9110 §15.3.3";
    203 NON_AUTHORITATIVE_INFORMATION "Non-Authoritative Information" true "RFC 9110 §15.3.4";
    204 NO_CONTENT "No Content" true "RFC 9110 §15.3.5";
    205 RESET_CONTENT "Reset Content" false "RFC 9110 §15.3.6";
    206 PARTIAL_CONTENT "Partial Content" true "RFC 9110 §15.3.7";
    207 MULTI_STATUS "Multi-Status" false "RFC 4918";
    208 ALREADY_REPORTED "Already Reported" false "RFC 5842";
    226 IM_USED "IM Used" false "RFC 3229";
    300 MULTIPLE_CHOICES "Multiple Choices" true "RFC 9110 §15.4.1";
    301 MOVED_PERMANENTLY "Moved Permanently" true "RFC 9110 §15.4.2";
    302 FOUND "Found" false "RFC 9110 §15.4.3";
    303 SEE_OTHER "See Other" false "RFC 9110 §15.4.4";
    304 NOT_MODIFIED "Not Modified" false "RFC 9110 §15.4.5";
    305 USE_PROXY "Use Proxy" false "RFC 9110 §15.4.6";
    306 UNUSED "(Unused)" false "RFC 9110 §15.4.7";
    307 TEMPORARY_REDIRECT "Temporary Redirect" false "RFC 9110 §15.4.8";
    308 PERMANENT_REDIRECT "Permanent Redirect" true "RFC 9110 §15.4.9";
    400 BAD_REQUEST "Bad Request" false "RFC 9110 §15.5.1";
    401 UNAUTHORIZED "Unauthorized" false "RFC 9110 §15.5.2";
    402 PAYMENT_REQUIRED "Payment Required" false "RFC 9110 §15.5.3";
    403 FORBIDDEN "Forbidden" false "RFC 9110 §15.5.4";
    404 NOT_FOUND "Not Found" true "RFC 9110 §15.5.5";
    405 METHOD_NOT_ALLOWED "Method Not Allowed" true "RFC 9110 §15.5.6";
    406 NOT_ACCEPTABLE "Not Acceptable" false "RFC 9110 §15.5.7";
    407 PROXY_AUTHENTICATION_REQUIRED "Proxy Authentication Required" false "RFC 9110 §15.5.8";
    408 REQUEST_TIMEOUT "Request Timeout" false "RFC 9110 §15.5.9";
    409 CONFLICT "Conflict" false "RFC 9110 §15.5.10";
    410 GONE "Gone" true "RFC 9110 §15.5.11";
    411 LENGTH_REQUIRED "Length Required" false "RFC 9110 §15.5.12";
    412 PRECONDITION_FAILED "Precondition Failed" false "RFC 9110 §15.5.13";
    413 CONTENT_TOO_LARGE "Content Too Large" false "RFC 9110 §15.5.14";
    414 URI_TOO_LONG "URI Too Long" true "RFC 9110 §15.5.15";
    415 UNSUPPORTED_MEDIA_TYPE "Unsupported Media Type" false "RFC 9110 §15.5.16";
    416 RANGE_NOT_SATISFIABLE "Range Not Satisfiable" false "RFC 9110 §15.5.17";
    417 EXPECTATION_FAILED "Expectation Failed" false "RFC 9110 §15.5.18";
    418 TEAPOT "(Unused)" false "RFC 9110 §15.5.19";
    421 MISDIRECTED_REQUEST "Misdirected Request" false "RFC 9110 §15.5.20";
    422 UNPROCESSABLE_CONTENT "Unprocessable Content" false "RFC 9110 §15.5.21";
    423 LOCKED "Locked" false "RFC 4918";
    424 FAILED_DEPENDENCY "Failed Dependency" false "RFC 4918";
    425 TOO_EARLY "Too Early" false "RFC 8470";
    426 UPGRADE_REQUIRED "Upgrade Required" false "RFC 9110 §15.5.22";
    428 PRECONDITION_REQUIRED "Precondition Required" false "RFC 6585 §3";
    429 TOO_MANY_REQUESTS "Too Many Requests" false "RFC 6585 §4";
    431 REQUEST_HEADER_FIELDS_TOO_LARGE "Request Header Fields Too Large" false "RFC 6585 §5";
    451 UNAVAILABLE_FOR_LEGAL_REASONS "Unavailable For Legal Reasons" false "RFC 7725";
    500 INTERNAL_SERVER_ERROR "Internal Server Error" false "RFC 9110 §15.6.1";
    501 NOT_IMPLEMENTED "Not Implemented" true "RFC 9110 §15.6.2";
    502 BAD_GATEWAY "Bad Gateway" false "RFC 9110 §15.6.3";
    503 SERVICE_UNAVAILABLE "Service Unavailable" false "RFC 9110 §15.6.4";
    504 GATEWAY_TIMEOUT "Gateway Timeout" false "RFC 9110 §15.6.5";
    505 HTTP_VERSION_NOT_SUPPORTED "HTTP Version Not Supported" false "RFC 9110 §15.6.6";
    506 VARIANT_ALSO_NEGOTIATES "Variant Also Negotiates" false "RFC 2295";
    507 INSUFFICIENT_STORAGE "Insufficient Storage" false "RFC 4918";
    508 LOOP_DETECTED "Loop Detected" false "RFC 5842";
    511 NETWORK_AUTHENTICATION_REQUIRED "Network Authentication Required" false "RFC 6585 §6";
}

impl Status {
    /// The status of this number; `None` outside 100 to 599.
    pub const fn new(code: u16) -> Option<Status> {
        if code >= 100 && code <= 599 { Some(Status(code)) } else { None }
    }

    /// The number.
    #[inline]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// The class, by the first digit.
    pub const fn class(self) -> Class {
        match self.0 / 100 {
            1 => Class::Informational,
            2 => Class::Successful,
            3 => Class::Redirection,
            4 => Class::ClientError,
            _ => Class::ServerError,
        }
    }

    /// 1xx: another response to the same request follows (101 excepted: it ends HTTP on the connection).
    #[inline]
    pub const fn is_interim(self) -> bool {
        self.0 < 200
    }

    /// Responses of this status end at the empty line, whatever the method (RFC 9112 §6.3 rule 1).
    #[inline]
    pub const fn never_has_content(self) -> bool {
        self.0 < 200 || self.0 == 204 || self.0 == 304
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.phrase() {
            "" => write!(f, "{}", self.0),
            phrase => write!(f, "{} {phrase}", self.0),
        }
    }
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 9110-15-R1: three digits, first from 1 to 5; what is unknown counts by its class.
    #[test]
    fn range_and_class() {
        for (code, class) in [
            (100, Class::Informational),
            (199, Class::Informational),
            (299, Class::Successful),
            (399, Class::Redirection),
            (499, Class::ClientError),
            (599, Class::ServerError),
        ] {
            assert_eq!(Status::new(code).unwrap().class(), class);
        }
        for bad in [0, 1, 20, 99, 600, 999, 2000, u16::MAX] {
            assert_eq!(Status::new(bad), None);
        }
    }

    /// RFC 9110 §15.1: the list of heuristically cacheable codes.
    #[test]
    fn heuristically_cacheable_codes() {
        let codes: Vec<u16> =
            Status::ALL.iter().filter(|s| s.is_heuristically_cacheable()).map(|s| s.code()).collect();
        assert_eq!(codes, [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501]);
    }

    #[test]
    fn lines_are_well_formed() {
        for status in Status::ALL {
            let line = status.line().unwrap();
            assert_eq!(line, format!("HTTP/1.1 {} {}\r\n", status.code(), status.phrase()).as_bytes());
        }
        assert_eq!(Status::new(299).unwrap().line(), None);
    }
}
