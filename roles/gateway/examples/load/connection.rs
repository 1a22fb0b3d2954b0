//! One kept connection that asks for answers.

use axum::http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Outcome;

pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    bearer: Option<HeaderValue>,
    path: Uri,
}

impl Connection {
    pub(crate) async fn open(url: &str) -> Outcome<Self> {
        let url: Uri = url.parse()?;
        let host = url.authority().ok_or("the URL has no host")?.as_str();
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, driven) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driven);
        let bearer = std::env::var("BEARER").ok().map(|key| format!("Bearer {key}").parse());
        Ok(Self {
            sender,
            host: host.parse()?,
            bearer: bearer.transpose()?,
            path: "/v1/chat/completions".parse()?,
        })
    }

    /// Asks, and waits for the head of the reply.
    pub(crate) async fn ask(
        &mut self,
        body: Bytes,
        payment: Option<HeaderValue>,
    ) -> Outcome<Response<Incoming>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.host.clone());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(bearer) = &self.bearer {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
        if let Some(payment) = payment {
            headers.insert("payment-signature", payment);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Asks, and reads the whole reply; its status and length.
    pub(crate) async fn whole(
        &mut self,
        body: Bytes,
        payment: Option<HeaderValue>,
    ) -> Outcome<(u16, usize)> {
        let reply = self.ask(body, payment).await?;
        let status = reply.status().as_u16();
        let mut body = reply.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok((status, length))
    }
}

/// What is asked: a short conversation.
pub(crate) fn question(stream: bool) -> Bytes {
    let model = std::env::var("MODEL").unwrap_or_else(|_| "bench".into());
    let body = serde_json::json!({
        "model": model,
        "messages": [
            { "role": "system", "content": "You are a helpful assistant." },
            { "role": "user", "content": "What is the capital of France? Answer in one word." },
        ],
        "temperature": 0,
        "max_tokens": 32,
        "stream": stream,
    });
    body.to_string().into()
}
