//! An axum application as one would write it for any server. What is eleven's own is `chat` alone: how a WebSocket is
//! accepted. See `main.rs` for the three lines that serve it.

use axum::body::Body;
use axum::extract::{Path, Query, Request};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use eleven_server::apps::service::{self, Client};
use futures_util::{SinkExt, Stream, StreamExt, stream};
use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The routes.
pub fn app() -> Router {
    Router::new()
        .route("/", get(|| async { "Hello, world!" }))
        .route("/hello/{name}", get(hello))
        .route("/json", post(json))
        .route("/client", get(client))
        .route("/echo", post(|request: Request| async { Response::new(request.into_body()) }))
        .route("/count/{number}", get(count))
        .route("/events", get(events))
        .route("/chat", any(chat))
}

async fn hello(Path(name): Path<String>, Query(query): Query<HashMap<String, String>>) -> String {
    let greeting = query.get("greeting").map_or("Hello", String::as_str);
    format!("{greeting}, {name}!")
}

async fn json(Json(value): Json<serde_json::Value>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "got": value }))
}

/// Who asks: an extension of every request.
async fn client(Extension(client): Extension<Client>) -> String {
    client.address.map_or_else(String::new, |address| address.ip().to_string())
}

/// Content that is made while it is sent.
async fn count(Path(number): Path<u32>) -> Response {
    let lines = stream::iter(0..number).map(|n| Ok::<_, Infallible>(Bytes::from(format!("{n}\n"))));
    Response::new(Body::from_stream(lines))
}

/// Server-sent events, without an end.
async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold(0u32, |n| async move {
        if n > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some((Ok(Event::default().event("tick").data(n.to_string())), n + 1))
    });
    Sse::new(events)
}

/// A WebSocket that sends every text back in reverse.
async fn chat(request: Request) -> Response {
    let accepted = service::websocket(&request, Body::empty(), |connection| async move {
        let mut socket = WebSocketStream::from_raw_socket(connection, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            let Ok(text) = message.to_text() else { continue };
            if message.is_text() {
                let reversed: String = text.chars().rev().collect();
                if socket.send(reversed.into()).await.is_err() {
                    return;
                }
            }
        }
    });
    accepted.unwrap_or_else(|| StatusCode::BAD_REQUEST.into_response())
}
