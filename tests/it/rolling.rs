//! A rolling restart under load, behind a proxy that honours `/readyz` and repeats nothing: every request gets
//! its answer, and every cent is accounted for.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use crate::support::{App, Behaviour, Client, Easel, Replica, usd};

const PROMPT: &str = "a relay of runners passes a lantern on";

/// As strict as a proxy can be: what fails is lost, and a replica that says that it is not ready gets nothing.
struct Proxy {
    origin: String,
    street: Arc<Street>,
    _tasks: JoinSet<()>,
}

struct Street {
    houses: Mutex<Vec<House>>,
    turn: AtomicUsize,
    lost: Mutex<Vec<String>>,
    http: reqwest::Client,
}

#[derive(Clone)]
struct House {
    origin: String,
    is_ready: bool,
}

impl Proxy {
    async fn start(replicas: &[String]) -> Self {
        let houses = replicas.iter().map(|origin| House {
            origin: origin.clone(),
            is_ready: false,
        });
        let street = Arc::new(Street {
            houses: Mutex::new(houses.collect()),
            turn: AtomicUsize::new(0),
            lost: Mutex::default(),
            http: reqwest::Client::builder()
                .no_proxy()
                .retry(reqwest::retry::never())
                .timeout(Duration::from_mins(1))
                .build()
                .unwrap(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .fallback(pass_on)
            .with_state(Arc::clone(&street));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        tasks.spawn(watch(Arc::clone(&street)));
        let proxy = Self {
            origin,
            street,
            _tasks: tasks,
        };
        for origin in replicas {
            proxy.wait_until(origin, true).await;
        }
        proxy
    }

    /// Waits until the proxy has learned it by itself.
    async fn wait_until(&self, origin: &str, is_ready: bool) {
        for _ in 0..6000 {
            let houses = self.street.houses.lock().unwrap().clone();
            let house = houses.iter().find(|house| house.origin == origin).unwrap();
            if house.is_ready == is_ready {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{origin} did not become ready = {is_ready}");
    }

    /// Another replica in the place of one that has ended.
    async fn replace(&self, old: &str, new: &str) {
        for house in &mut *self.street.houses.lock().unwrap() {
            if house.origin == old {
                assert!(!house.is_ready, "{old} ended without a word");
                new.clone_into(&mut house.origin);
            }
        }
        self.wait_until(new, true).await;
    }
}

/// Asks every replica whether it is ready, all the time.
async fn watch(street: Arc<Street>) {
    loop {
        let houses = street.houses.lock().unwrap().clone();
        for house in houses {
            let url = format!("{}/readyz", house.origin);
            let asked = street.http.get(url).send().await;
            let is_ready = asked.is_ok_and(|answer| answer.status() == 200);
            for known in &mut *street.houses.lock().unwrap() {
                if known.origin == house.origin {
                    known.is_ready = is_ready;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn pass_on(State(street): State<Arc<Street>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let passed = async {
        let ready: Vec<String> = {
            let houses = street.houses.lock().unwrap();
            let ready = houses.iter().filter(|house| house.is_ready);
            ready.map(|house| house.origin.clone()).collect()
        };
        let turn = street.turn.fetch_add(1, Ordering::Relaxed);
        let origin = ready
            .get(turn.checked_rem(ready.len()).unwrap_or(0))
            .ok_or("no replica is ready")?;
        let url = format!("{origin}{}", head.uri);
        let asked = street.http.request(head.method, url);
        let answer = asked
            .headers(head.headers)
            .body(body)
            .send()
            .await
            .map_err(|error| format!("{origin}: {error:?}"))?;
        let mut response = Response::builder().status(answer.status());
        if let Some(kind) = answer.headers().get("content-type") {
            response = response.header("content-type", kind);
        }
        let bytes = answer.bytes().await;
        let bytes = bytes.map_err(|error| format!("{origin}: {error:?}"))?;
        Ok::<_, String>(response.body(Body::from(bytes)).unwrap())
    };
    match passed.await {
        Ok(response) => response,
        Err(why) => {
            street.lost.lock().unwrap().push(why);
            Response::builder().status(502).body(Body::empty()).unwrap()
        }
    }
}

/// Tells a replica to go, and, when the proxy has learned of it, not to wait any longer for others to learn.
async fn dismiss(proxy: &Proxy, easel: &mut Easel) -> String {
    let origin = easel.origin();
    easel.signal(Signal::TERM);
    proxy.wait_until(&origin, false).await;
    easel.signal(Signal::TERM);
    let status = easel.ended(Duration::from_mins(1)).await;
    assert_eq!(status.code(), Some(0), "{}", easel.stderr());
    origin
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_loses_no_request() {
    const CLIENTS: usize = 8;
    let mut app = App::builder()
        .await
        // Until the proxy has learned of it, which the test waits for.
        .set("shutdown.drain_delay", "1h")
        .start()
        .await;
    let key = app.live_key("100");
    app.openai
        .always(Behaviour::AnswerAfter(Duration::from_millis(100)));
    let mut second = app.start_replica().await;
    let replicas = [app.easel.origin(), second.easel.origin()];
    let proxy = Proxy::start(&replicas).await;

    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let client = Client::new(proxy.origin.clone(), app.secrets());
    let clients = (0..CLIENTS).map(|_| async {
        while !is_over.load(Ordering::Relaxed) {
            let body = json!({"model": "dall-e-3", "prompt": PROMPT});
            let path = "/v1/images/generations";
            let answer = client.post_json(path, Some(&key.secret), &body).await;
            let answer = answer.expect(200).json();
            assert_eq!(answer["usage"]["cost"], json!(0.04));
            answered.fetch_add(1, Ordering::Relaxed);
        }
    });
    let more = async || {
        let goal = answered.load(Ordering::Relaxed) + 3 * CLIENTS;
        while answered.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let restarts = async {
        more().await;
        let old = dismiss(&proxy, &mut app.easel).await;
        app.start_again().await;
        proxy.replace(&old, &app.easel.origin()).await;
        more().await;
        let old = dismiss(&proxy, &mut second.easel).await;
        second.stop().await;
        let third: Replica = app.start_replica().await;
        proxy.replace(&old, &third.easel.origin()).await;
        more().await;
        is_over.store(true, Ordering::Relaxed);
        third
    };
    let (_, mut third) = tokio::join!(join_all(clients), restarts);

    let lost = proxy.street.lost.lock().unwrap().clone();
    assert!(lost.is_empty(), "{lost:#?}");
    let answered = i64::try_from(answered.into_inner()).unwrap();
    assert_eq!(app.openai.calls().len(), usize::try_from(answered).unwrap());
    assert_eq!(
        app.balance(&key).await,
        usd(100_000_000_000 - 40_000_000 * answered)
    );
    let completed = "select count(*) from generations where status = 'completed'";
    assert_eq!(app.database.number(completed).await, answered);
    // Nobody has to be told of this, so nobody is waited for.
    for easel in [&mut third.easel, &mut app.easel] {
        easel.signal(Signal::INT);
        easel.ended(Duration::from_mins(1)).await;
    }
    third.stop().await;
    app.finish().await;
}
