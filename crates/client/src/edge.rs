//! The edge to Rust programs that speak the types of the `http` and `http-body` crates: their requests become ours, our
//! responses theirs. Content goes both ways as a stream with back-pressure, with trailers.
//!
//! `http` keeps names in lower case and in no order. So that no octet is lost, a response carries its header section as
//! it was received in an extension, [`WireFields`], and a request that carries one is sent with exactly those fields.
//! Takes no decision: those are the agent's.

use crate::agent::{Agent, Ask, Response};
use crate::error::{Cause, Failure, Phase};
use crate::transfer::Content;
use bytes::Bytes;
use eleven_messaging::server::Length;
use eleven_net::pipe::{PipeWriter, Reason, pipe};
use eleven_semantics::uri::Uri;
use eleven_semantics::{Fields, Known, Method, Version};
use http_body::Frame;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Content of a request that waits to be sent, at most.
const PIPE_BYTES_MAX: usize = 64 * 1024;

/// A header section as on the wire: order, case and octets of each line.
#[derive(Clone)]
pub struct WireFields(pub Fields);

/// Content of a response. Dropped before its end, it closes its connection.
pub struct Body(Option<Response>);

/// Sends a request whose content is in memory: it can be sent again where that is safe.
///
/// # Errors
/// Why there is no final response.
pub async fn send(agent: &Agent, request: http::Request<Bytes>) -> Result<http::Response<Body>, Failure> {
    let (parts, content) = request.into_parts();
    let mut ask = ask(parts)?;
    if !content.is_empty() {
        ask.length = Length::Known(content.len() as u64);
        ask.content = Content::Bytes(content);
    }
    Ok(response(agent.send(ask).await?))
}

/// Sends a request whose content comes as a stream. It is never sent a second time. Must be called where
/// `spawn_local` may be.
///
/// # Errors
/// Why there is no final response.
pub async fn send_stream<B>(agent: &Agent, request: http::Request<B>) -> Result<http::Response<Body>, Failure>
where
    B: http_body::Body<Data = Bytes> + 'static,
{
    let (parts, content) = request.into_parts();
    let mut ask = ask(parts)?;
    if !content.is_end_stream() {
        ask.length = content.size_hint().exact().map_or(Length::Unknown, Length::Known);
        let (writer, reader) = pipe(PIPE_BYTES_MAX);
        ask.content = Content::Pipe(reader);
        tokio::task::spawn_local(pour(content, writer));
    }
    Ok(response(agent.send(ask).await?))
}

/// Moves content into a pipe, at the pace at which it is taken out.
async fn pour<B>(content: B, mut writer: PipeWriter<Option<Fields>>)
where
    B: http_body::Body<Data = Bytes>,
{
    let mut content = Box::pin(content);
    while let Some(frame) = poll_fn(|cx| content.as_mut().poll_frame(cx)).await {
        let Ok(frame) = frame else { return writer.abort(Reason::Cancelled) };
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                if writer.send(data).await.is_err() {
                    return;
                }
            }
            Err(frame) => {
                let trailers = frame.into_trailers().ok().and_then(|trailers| fields(&trailers).ok());
                return writer.complete(trailers);
            }
        }
    }
    writer.complete(None);
}

fn unusable(why: impl std::fmt::Display) -> Failure {
    Failure::new(Phase::Prepare, Cause::Unusable(why.to_string()))
}

fn ask(parts: http::request::Parts) -> Result<Ask, Failure> {
    let (uri, userinfo) = Uri::parse(parts.uri.to_string().as_bytes()).map_err(unusable)?;
    if userinfo.is_some() {
        return Err(unusable("credentials do not belong into a URI; give them to the agent"));
    }
    let mut ask = Ask::get(uri);
    ask.method = Method::from_bytes(parts.method.as_str().as_bytes())
        .ok_or_else(|| unusable("the method is no token"))?;
    ask.version = match parts.version {
        http::Version::HTTP_10 => Version::Http10,
        http::Version::HTTP_11 => Version::Http11,
        other => return Err(unusable(format!("{other:?} is not spoken here"))),
    };
    ask.fields = match parts.extensions.get::<WireFields>() {
        Some(WireFields(fields)) => fields.clone(),
        None => fields(&parts.headers)?,
    };
    // What belongs to the connection is written by the connection (RFC 9110 §7.6.1); Host is that of the URI.
    ask.close = ask.fields.has_member(Known::Connection, "close");
    ask.expect_continue = ask.fields.has_member(Known::Expect, "100-continue");
    for name in [
        Known::Host,
        Known::ContentLength,
        Known::TransferEncoding,
        Known::Connection,
        Known::KeepAlive,
        Known::Te,
        Known::Expect,
        Known::Upgrade,
    ] {
        ask.fields.remove(name);
    }
    Ok(ask)
}

fn fields(headers: &http::HeaderMap) -> Result<Fields, Failure> {
    let mut fields = Fields::new();
    for (name, value) in headers {
        fields.push(name.as_str(), value.as_bytes()).map_err(|error| unusable(format!("{name}: {error}")))?;
    }
    Ok(fields)
}

/// Fields as a map. What a map cannot hold (there is nothing of the kind in a section that was accepted) is left out.
fn map(fields: &Fields) -> http::HeaderMap {
    let mut map = http::HeaderMap::with_capacity(fields.len());
    for field in fields.iter() {
        let name = http::HeaderName::from_bytes(field.name);
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(field.value)) {
            map.append(name, value);
        }
    }
    map
}

/// A response as `http` has it; its content is still to come.
pub fn response(response: Response) -> http::Response<Body> {
    let head = response.head();
    let mut converted = http::Response::new(Body(None));
    // Every status that is read is one of `http`, too.
    *converted.status_mut() = http::StatusCode::from_u16(head.status.code()).unwrap_or_default();
    *converted.version_mut() = match head.version {
        Version::Http11 => http::Version::HTTP_11,
        Version::Http10 => http::Version::HTTP_10,
        Version::Http09 => http::Version::HTTP_09,
    };
    *converted.headers_mut() = map(&head.fields);
    converted.extensions_mut().insert(WireFields(head.fields.clone()));
    *converted.body_mut() = Body(Some(response));
    converted
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Some(response) = &mut self.0 else { return Poll::Ready(None) };
        match std::task::ready!(response.poll_data(cx)) {
            Ok(Some(data)) => Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(data))))),
            Ok(None) => {
                let trailers = response.trailers().map(map);
                if let Some(response) = self.0.take() {
                    response.finish_now();
                }
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(failure) => {
                self.0 = None;
                Poll::Ready(Some(Err(failure)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|response| response.is_complete() && response.trailers().is_none())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        let left = self
            .0
            .as_ref()
            .and_then(|response| if response.is_complete() { Some(0) } else { response.content_left() });
        left.map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::Connector;
    use crate::pool::PoolLimits;
    use http_body::Body as _;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn agent() -> Agent {
        let dialer = eleven_net::dial::Dialer::new(
            eleven_net::resolve::Resolver::new(Default::default()),
            Default::default(),
        );
        let connector = Connector::new(dialer, Default::default(), Default::default());
        Agent::new(Default::default(), connector, PoolLimits::default())
    }

    /// Answers request after request on one connection; a request ends where its text is found.
    async fn server(exchanges: Vec<(&'static str, &'static [u8])>) -> (u16, Rc<RefCell<Vec<String>>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Rc<RefCell<Vec<String>>> = Rc::default();
        let heard = Rc::clone(&seen);
        tokio::task::spawn_local(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            for (end, answer) in exchanges {
                let mut request = Vec::new();
                while !request.ends_with(end.as_bytes()) {
                    request.push(socket.read_u8().await.unwrap());
                }
                heard.borrow_mut().push(String::from_utf8(request).unwrap());
                socket.write_all(answer).await.unwrap();
            }
            let _ = socket.read_u8().await;
        });
        (port, seen)
    }

    async fn read(body: &mut Body) -> (Vec<u8>, Option<http::HeaderMap>) {
        let (mut content, mut trailers) = (Vec::new(), None);
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            match frame.unwrap().into_data() {
                Ok(data) => content.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        (content, trailers)
    }

    /// Frames that are ready at once.
    struct Frames(VecDeque<Frame<Bytes>>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    /// Octets, order and case are kept both ways, content and trailers stream both ways, and the connection is used again.
    #[tokio::test(flavor = "local")]
    async fn nothing_is_lost_at_the_edge() {
        let (port, seen) = server(vec![
            (
                "\r\n\r\nhello",
                b"HTTP/1.1 200 OK\r\nX-Mixed: 1\r\nserver: \xff\r\nX-mixed: 2\r\nContent-Length: 2\r\n\r\nhi",
            ),
            (
                "0\r\nx-sum: 5\r\n\r\n",
                b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
            ),
            ("\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ])
        .await;
        let agent = agent();
        let uri = format!("http://127.0.0.1:{port}/a?b");
        let kept: Fields = [("X-Order", "b"), ("x-ORDER", "a")].iter().collect();
        let request = http::Request::post(&uri)
            .extension(WireFields(kept))
            .header("x-not-sent", "the wire form counts")
            .body(Bytes::from_static(b"hello"))
            .unwrap();
        let mut response = send(&agent, request).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers()["server"].as_bytes()),
            (200, &b"\xff"[..])
        );
        assert_eq!(response.headers().get_all("x-mixed").iter().count(), 2);
        let wire = response.extensions().get::<WireFields>().unwrap().0.clone();
        assert!(wire.wire().starts_with(b"X-Mixed: 1\r\nserver: \xff\r\nX-mixed: 2\r\n"));
        assert_eq!(response.body().size_hint().exact(), Some(2));
        assert_eq!(read(response.body_mut()).await, (b"hi".to_vec(), None));
        assert!(seen.borrow()[0].contains("X-Order: b\r\nx-ORDER: a\r\n"), "{}", seen.borrow()[0]);
        assert!(!seen.borrow()[0].contains("not-sent"));

        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("5"));
        let frames = [Frame::data("one ".into()), Frame::data("two".into()), Frame::trailers(trailers)];
        let request = http::Request::put(&uri).body(Frames(frames.into())).unwrap();
        let mut response = send_stream(&agent, request).await.unwrap();
        assert_eq!(response.body().size_hint().exact(), None);
        let (content, trailers) = read(response.body_mut()).await;
        assert_eq!((content, trailers.unwrap()["x-sum"].as_bytes()), (b"ok".to_vec(), &b"7"[..]));
        assert!(response.body().is_end_stream());
        let sent = seen.borrow()[1].clone();
        assert!(sent.contains("Transfer-Encoding: chunked\r\n") && sent.contains("one "), "{sent}");

        let request = http::Request::get(&uri).body(Bytes::new()).unwrap();
        let response = send(&agent, request).await.unwrap();
        assert!(response.body().is_end_stream(), "the third exchange was on the same connection");
    }

    #[tokio::test(flavor = "local")]
    async fn what_cannot_be_sent_is_refused() {
        let refused = |request: http::Request<Bytes>| async move {
            let failure = send(&agent(), request).await.err().expect("a refusal");
            assert_eq!(failure.phase, Phase::Prepare, "{failure}");
        };
        let get = |uri: &str| http::Request::get(uri);
        refused(get("/relative").body(Bytes::new()).unwrap()).await;
        refused(get("http://u:p@127.0.0.1/").body(Bytes::new()).unwrap()).await;
        refused(get("http://127.0.0.1/").version(http::Version::HTTP_2).body(Bytes::new()).unwrap()).await;
    }
}
