//! The contender: what openraft's own example `network-v2-http` does, with the same parts (reqwest, hyper, JSON).

use std::{
    collections::BTreeMap, convert::Infallible, io::Cursor, net::SocketAddr, sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use openraft::{
    OptionalSend, Snapshot,
    errors::{NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable},
    network::{RPCOption, RaftNetworkFactory, v2::RaftNetworkV2},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
    type_config::alias::{SnapshotOf, VoteOf},
};
use openraft_memstore::TypeConfig;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpListener;

use crate::Raft;

/// One client, whose connections all nodes that it reaches share.
pub(crate) struct Http {
    pub(crate) client: reqwest::Client,
    pub(crate) addresses: Arc<BTreeMap<u64, SocketAddr>>,
}

pub(crate) struct Peer {
    client: reqwest::Client,
    url: String,
}

impl RaftNetworkFactory<TypeConfig> for Http {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, (): &()) -> Peer {
        Peer {
            client: self.client.clone(),
            url: format!("http://{}", self.addresses[&target]),
        }
    }
}

impl Peer {
    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
        timeout: Duration,
    ) -> Result<T, RPCError<TypeConfig>> {
        let request = self
            .client
            .post(format!("{}/{path}", self.url))
            .json(request);
        let response =
            request
                .timeout(timeout)
                .send()
                .await
                .map_err(|error| match error.is_connect() {
                    true => RPCError::Unreachable(Unreachable::new(&error)),
                    false => RPCError::Network(NetworkError::new(&error)),
                })?;
        let result: Result<T, RaftError<TypeConfig>> = response
            .json()
            .await
            .map_err(|error| NetworkError::new(&error))?;
        result.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Cursor<Vec<u8>>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.post("append", &rpc, option.soft_ttl()).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.post("vote", &rpc, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, Cursor<Vec<u8>>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let request = (vote, snapshot.meta, snapshot.snapshot.into_inner());
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.post("snapshot", &request, option.soft_ttl()) => Ok(sent?),
        }
    }
}

/// Handles the requests of other nodes until the task is aborted.
pub(crate) async fn serve(listener: std::net::TcpListener, raft: Raft) {
    listener.set_nonblocking(true).expect("a socket");
    let listener = TcpListener::from_std(listener).expect("a socket");
    while let Ok((stream, _)) = listener.accept().await {
        let raft = raft.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| handle(raft.clone(), request));
            // It ends with an error when the client is dropped.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn handle(
    raft: Raft,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let reply = match path.as_str() {
        "/append" => json(&raft.append_entries(parse(&body)).await),
        "/vote" => json(&raft.vote(parse(&body)).await),
        _ => {
            let (vote, meta, data) = parse(&body);
            let snapshot = Snapshot {
                meta,
                snapshot: Cursor::new(data),
            };
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            json(&installed.map_err(RaftError::<TypeConfig>::Fatal))
        }
    };
    let mut response = Response::new(Full::from(reply));
    let json = hyper::header::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> T {
    serde_json::from_slice(body).expect("a request of this program")
}

fn json(reply: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(reply).expect("a reply is JSON")
}
