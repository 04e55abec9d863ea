//! What stands between Easel and its `PostgreSQL`, or an app and Easel, when a test wants bad weather there.
//!
//! Knows nothing of what it carries. Connections break as they do when a machine goes away: in the middle of
//! anything, without a word.

use std::{io, path::PathBuf, str::FromStr as _, time::Duration};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
};

/// The proxy, until it is dropped.
pub(crate) struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    _server: JoinSet<()>,
}

#[derive(Debug, Clone, Copy)]
struct Weather {
    /// Counts the storms.
    storm: u64,
    /// It breaks every so manieth connection.
    every: u64,
    is_open: bool,
    is_still: bool,
    delay: Duration,
}

impl Weather {
    const FINE: Self = Self {
        storm: 0,
        every: 1,
        is_open: true,
        is_still: false,
        delay: Duration::ZERO,
    };
}

/// Where it leads.
#[derive(Debug, Clone)]
enum Target {
    Socket(PathBuf),
    Address(String, u16),
}

impl Proxy {
    /// Before the server of this database.
    pub(crate) async fn before(database_url: &str) -> Self {
        let options = PgConnectOptions::from_str(database_url).unwrap();
        let port = options.get_port();
        Self::to(match options.get_socket() {
            Some(directory) => Target::Socket(directory.join(format!(".s.PGSQL.{port}"))),
            None => Target::Address(options.get_host().to_owned(), port),
        })
        .await
    }

    /// Before whoever listens on this port.
    pub(crate) async fn before_port(port: u16) -> Self {
        Self::to(Target::Address("127.0.0.1".to_owned(), port)).await
    }

    async fn to(target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (weather, seen) = watch::channel(Weather::FINE);
        let mut server = JoinSet::new();
        server.spawn(serve(listener, target, seen));
        Self {
            port,
            weather,
            _server: server,
        }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How the same database is reached through here.
    pub(crate) fn url(&self, database_url: &str) -> String {
        let options = PgConnectOptions::from_str(database_url).unwrap();
        let (_, rest) = database_url.split_once("://").unwrap();
        let user = rest.split_once('@').map_or("", |(user, _)| user);
        let name = options.get_database().unwrap();
        format!(
            "postgres://{user}@127.0.0.1:{}/{name}?sslmode=disable",
            self.port
        )
    }

    /// Breaks every so manieth connection.
    pub(crate) fn cut(&self, every: u64) {
        self.weather.send_modify(|weather| {
            weather.storm += 1;
            weather.every = every.max(1);
        });
    }

    /// Breaks all connections, and new ones at once.
    pub(crate) fn close(&self) {
        self.weather.send_modify(|weather| weather.is_open = false);
    }

    /// Lets nothing through for the time being.
    pub(crate) fn stand_still(&self) {
        self.weather.send_modify(|weather| weather.is_still = true);
    }

    /// Lets everything through so much later.
    pub(crate) fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Back to fine weather.
    pub(crate) fn open(&self) {
        self.weather.send_modify(|weather| {
            let storm = weather.storm;
            *weather = Weather {
                storm,
                ..Weather::FINE
            };
        });
    }
}

async fn serve(listener: TcpListener, target: Target, weather: watch::Receiver<Weather>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                number += 1;
                connections.spawn(carry(client, target.clone(), number, weather.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(
    client: TcpStream,
    target: Target,
    number: u64,
    mut weather: watch::Receiver<Weather>,
) {
    let now = *weather.borrow_and_update();
    if !now.is_open {
        return;
    }
    client.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let pumps = weather.clone();
    let carried = async {
        match target {
            Target::Socket(path) => {
                let (from_server, to_server) = UnixStream::connect(path).await?.into_split();
                both(from_client, to_server, from_server, to_client, pumps).await
            }
            Target::Address(host, port) => {
                let server = TcpStream::connect((host, port)).await?;
                server.set_nodelay(true)?;
                let (from_server, to_server) = server.into_split();
                both(from_client, to_server, from_server, to_client, pumps).await
            }
        }
    };
    tokio::select! {
        // However it ended: it is over for both sides.
        _ = carried => {}
        () = hit(number, now.storm, weather) => {}
    }
}

/// When the connection of this number is broken.
async fn hit(number: u64, mut seen: u64, mut weather: watch::Receiver<Weather>) {
    while weather.changed().await.is_ok() {
        let now = *weather.borrow_and_update();
        let is_hit = now.storm != seen && (number + now.storm).is_multiple_of(now.every);
        if is_hit || !now.is_open {
            return;
        }
        seen = now.storm;
    }
}

async fn both(
    from_client: impl AsyncRead + Unpin,
    to_server: impl AsyncWrite + Unpin,
    from_server: impl AsyncRead + Unpin,
    to_client: impl AsyncWrite + Unpin,
    weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    tokio::select! {
        ended = pump(from_client, to_server, weather.clone()) => ended,
        ended = pump(from_server, to_client, weather) => ended,
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let delay = match weather.wait_for(|now| !now.is_still).await {
            Ok(now) => now.delay,
            Err(_) => return Ok(()),
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
