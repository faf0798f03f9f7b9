//! Proxy-Status (RFC 9209): an intermediary's word on why it, and not the origin server, answered. One table of
//! error types with their recommended status. Details go out only where the operator wants them.

use crate::grammar;
use crate::status::Status;

macro_rules! errors {
    ($($variant:ident $token:literal $status:ident $doc:literal;)*) => {
        /// A type of RFC 9209 §2.3.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProxyError {
            $(#[doc = $doc] $variant),*
        }

        impl ProxyError {
            /// Every type.
            pub const ALL: &'static [ProxyError] = &[$(ProxyError::$variant),*];

            /// The token of the registry.
            pub fn token(self) -> &'static str {
                match self { $(ProxyError::$variant => $token),* }
            }

            /// What it means, in a sentence for people.
            pub fn meaning(self) -> &'static str {
                match self { $(ProxyError::$variant => $doc),* }
            }

            /// The status it is answered with (9209 §2.3's recommendation).
            pub fn status(self) -> Status {
                match self { $(ProxyError::$variant => Status::$status),* }
            }
        }
    };
}

errors! {
    DnsTimeout "dns_timeout" GATEWAY_TIMEOUT "The resolver did not answer in time.";
    DnsError "dns_error" BAD_GATEWAY "The name has no address.";
    DestinationNotFound "destination_not_found" INTERNAL_SERVER_ERROR "No next hop is configured for the request.";
    DestinationUnavailable "destination_unavailable" SERVICE_UNAVAILABLE "Every next hop is known to be out of service.";
    DestinationIpProhibited "destination_ip_prohibited" BAD_GATEWAY "Connections to the address are not allowed.";
    DestinationIpUnroutable "destination_ip_unroutable" BAD_GATEWAY "There is no route to the address.";
    ConnectionRefused "connection_refused" BAD_GATEWAY "The next hop refused the connection.";
    ConnectionTerminated "connection_terminated" BAD_GATEWAY "The connection ended before a response.";
    ConnectionTimeout "connection_timeout" GATEWAY_TIMEOUT "No connection in time.";
    ConnectionReadTimeout "connection_read_timeout" GATEWAY_TIMEOUT "The next hop fell silent.";
    ConnectionWriteTimeout "connection_write_timeout" GATEWAY_TIMEOUT "The next hop does not read the request.";
    ConnectionLimitReached "connection_limit_reached" SERVICE_UNAVAILABLE "All connections allowed are in use.";
    TlsProtocolError "tls_protocol_error" BAD_GATEWAY "The TLS handshake failed.";
    TlsCertificateError "tls_certificate_error" BAD_GATEWAY "The next hop's certificate was refused.";
    TlsAlertReceived "tls_alert_received" BAD_GATEWAY "The next hop refused us in the TLS handshake.";
    HttpRequestError "http_request_error" BAD_REQUEST "The request is at fault.";
    HttpRequestDenied "http_request_denied" FORBIDDEN "The request is not allowed.";
    HttpResponseIncomplete "http_response_incomplete" BAD_GATEWAY "The response was cut short.";
    HttpResponseHeaderSectionSize "http_response_header_section_size" BAD_GATEWAY "The response's header section is too large.";
    HttpResponseTrailerSectionSize "http_response_trailer_section_size" BAD_GATEWAY "The response's trailer section is too large.";
    HttpResponseTransferCoding "http_response_transfer_coding" BAD_GATEWAY "The response's transfer coding cannot be decoded.";
    HttpResponseTimeout "http_response_timeout" GATEWAY_TIMEOUT "No complete response in time.";
    HttpUpgradeFailed "http_upgrade_failed" BAD_GATEWAY "The switch of protocols failed.";
    HttpProtocolError "http_protocol_error" BAD_GATEWAY "The response breaks the protocol.";
    ProxyInternalError "proxy_internal_error" INTERNAL_SERVER_ERROR "A fault of ours.";
    ProxyConfigurationError "proxy_configuration_error" INTERNAL_SERVER_ERROR "Our configuration is at fault.";
    ProxyLoopDetected "proxy_loop_detected" BAD_GATEWAY "The request has been here before.";
}

/// The field value: `name; error=type`, with the status received from the next hop where there was one, and
/// details for the operator where they may be told.
pub fn value(name: &str, error: ProxyError, received: Option<Status>, details: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    // A token of Structured Fields begins with a letter or `*` and allows less than HTTP's; else a string.
    let is_sf_token = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
        && name.bytes().all(|b| grammar::is_tchar(b) || b == b':' || b == b'/');
    if is_sf_token {
        out.extend_from_slice(name.as_bytes());
    } else {
        push_string(&mut out, name);
    }
    out.extend_from_slice(b"; error=");
    out.extend_from_slice(error.token().as_bytes());
    if let Some(status) = received {
        out.extend_from_slice(b"; received-status=");
        grammar::push_decimal(&mut out, u64::from(status.code()));
    }
    if let Some(details) = details {
        out.extend_from_slice(b"; details=");
        push_string(&mut out, details);
    }
    out
}

/// An `sf-string` (RFC 9651 §3.3.3): visible ASCII and SP; anything else becomes `?`.
fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
            ' '..='~' => out.push(c as u8),
            _ => out.push(b'?'),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_structured_fields() {
        let text = |v: Vec<u8>| String::from_utf8(v).unwrap();
        assert_eq!(
            text(value("eleven-ab12", ProxyError::ConnectionTimeout, None, None)),
            "eleven-ab12; error=connection_timeout"
        );
        assert_eq!(
            text(value("1st", ProxyError::HttpProtocolError, Status::new(200), Some("a \"b\"\r\n\u{e4}"))),
            r#""1st"; error=http_protocol_error; received-status=200; details="a \"b\"???""#
        );
    }

    /// RFC 9209 §2.3: the recommended statuses, as its text has them.
    #[test]
    fn statuses_are_those_recommended() {
        for error in ProxyError::ALL {
            let recommended = match error.token() {
                "dns_timeout"
                | "connection_timeout"
                | "connection_read_timeout"
                | "connection_write_timeout"
                | "http_response_timeout" => 504,
                "destination_not_found" | "proxy_internal_error" | "proxy_configuration_error" => 500,
                "destination_unavailable" | "connection_limit_reached" => 503,
                "http_request_error" => 400,
                "http_request_denied" => 403,
                _ => 502,
            };
            assert_eq!(error.status().code(), recommended, "{error:?}");
        }
    }

    #[test]
    fn types_are_tokens_with_an_error_status() {
        for error in ProxyError::ALL {
            assert!(error.token().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{error:?}");
            assert!(error.status().code() >= 400, "{error:?}");
        }
    }
}
