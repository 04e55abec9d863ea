//! HTTPS by Easel itself: protocols, renewed certificates, and files that do not fit.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::App;

/// An authority, and what it has signed for localhost.
pub(crate) struct Signed {
    pub(crate) authority: String,
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Signed {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(params, authority_key);
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let key = KeyPair::generate().unwrap();
        Self {
            authority,
            cert: params.signed_by(&key, &issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// An Easel with a certificate, and where its files are.
struct Secure {
    app: App,
    signed: Signed,
    cert: PathBuf,
    key: PathBuf,
}

impl Secure {
    async fn start() -> Self {
        Self::with_patience("2m").await
    }

    /// Waits so long for a client to say what it wants.
    async fn with_patience(patience: &str) -> Self {
        let builder = App::builder().await;
        let path = |name: &str| builder.directory().join(name);
        let (cert, key) = (path("tls.crt"), path("tls.key"));
        let signed = Signed::new();
        std::fs::write(&cert, &signed.cert).unwrap();
        std::fs::write(&key, &signed.key).unwrap();
        let app = builder
            .set("tls.cert", cert.to_str().unwrap())
            .set("tls.key", key.to_str().unwrap())
            .set("limits.header_timeout", patience)
            .start()
            .await;
        assert!(app.easel.origin().starts_with("https://"));
        Self {
            app,
            signed,
            cert,
            key,
        }
    }

    /// A connection by a client that trusts this authority alone.
    async fn connect(
        &self,
        authority: &str,
        version: &'static SupportedProtocolVersion,
        protocols: &[&str],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let socket = TcpStream::connect(("127.0.0.1", self.app.easel.port())).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await
    }
}

/// What comes back for `GET /healthz` over HTTP/1.1, as long as the connection lives.
async fn ask(socket: &mut TlsStream<TcpStream>) -> String {
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut heard = String::new();
    while !heard.ends_with("{\"status\":\"ok\"}") {
        let mut piece = [0; 1024];
        let length = socket.read(&mut piece).await.unwrap();
        assert_ne!(length, 0, "{heard}");
        heard.push_str(std::str::from_utf8(&piece[..length]).unwrap());
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_choose_among_two_versions_and_two_protocols() {
    let secure = Secure::start().await;
    for (version, number) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        for (offered, chosen) in [
            (&["h2", "http/1.1"][..], Some("h2")),
            (&["http/1.1"], Some("http/1.1")),
            (&[], None),
        ] {
            let authority = &secure.signed.authority;
            let mut socket = secure.connect(authority, version, offered).await.unwrap();
            let (_, session) = socket.get_ref();
            assert_eq!(session.protocol_version(), Some(number));
            assert_eq!(session.alpn_protocol(), chosen.map(str::as_bytes));
            if chosen == Some("h2") {
                let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
                socket.write_all(preface).await.unwrap();
                let mut frame = [0; 9];
                socket.read_exact(&mut frame).await.unwrap();
                assert_eq!(frame[3], 4, "the server's settings come first");
            } else {
                assert!(ask(&mut socket).await.starts_with("HTTP/1.1 200"));
            }
        }
    }
    secure.app.finish().await;
}

/// The whole way, links included, as an app goes it that trusts the authority.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_trusts_the_authority_is_served() {
    let secure = Secure::start().await;
    let key = secure.app.live_key("1");
    let client = |authority: &str| {
        let authority = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
        let client = reqwest::Client::builder().no_proxy();
        client.tls_certs_only([authority]).build().unwrap()
    };
    let url = format!("{}/v1/images/generations", secure.app.easel.origin());
    let body = json!({"model": "dall-e-3", "prompt": "a sealed letter", "response_format": "url"});
    let ask = |client: &reqwest::Client| {
        let request = client.post(&url).bearer_auth(&key.secret);
        let request = request.header("content-type", "application/json");
        request.body(body.to_string()).send()
    };
    let trusting = client(&secure.signed.authority);
    let answer = ask(&trusting).await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let link = answer["data"][0]["url"].as_str().unwrap();
    assert!(link.starts_with(&secure.app.easel.origin()), "https");
    assert_eq!(trusting.get(link).send().await.unwrap().status(), 200);
    let stranger = client(&Signed::new().authority);
    let refused = ask(&stranger).await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
    // `easel health` asks an address of its own, whoever the certificate is for.
    let listen = secure.app.easel.origin().replace("https://", "");
    let health = crate::support::run_easel(
        secure.app.directory(),
        &[
            "health",
            "--config",
            secure.app.config_file().to_str().unwrap(),
        ],
        &[("EASEL__LISTEN", &listen)],
    );
    health.expect_success();
    secure.app.finish().await;
}

/// Handshakes that go on are in nobody's way.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_time_over_the_handshake_holds_up_nobody() {
    let secure = Secure::with_patience("2s").await;
    let mut slow = Vec::new();
    for _ in 0..32 {
        let address = ("127.0.0.1", secure.app.easel.port());
        let mut socket = TcpStream::connect(address).await.unwrap();
        // The beginning of a record, whose rest does not come.
        socket.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        slow.push(socket);
    }
    let authority = &secure.signed.authority;
    let mut socket = secure.connect(authority, &TLS13, &[]).await.unwrap();
    ask(&mut socket).await;
    for mut socket in slow {
        let mut heard = Vec::new();
        let ended = timeout(Duration::from_secs(30), socket.read_to_end(&mut heard));
        ended.await.expect("it is closed").ok();
    }
    secure.app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_no_tls_is_hung_up_on() {
    let secure = Secure::with_patience("2s").await;
    for says in [
        &b""[..],
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        let address = ("127.0.0.1", secure.app.easel.port());
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(says).await.unwrap();
        let mut heard = Vec::new();
        let ended = timeout(Duration::from_secs(30), socket.read_to_end(&mut heard));
        // An alert of TLS, or nothing.
        ended
            .await
            .expect("the connection should have been closed")
            .ok();
        assert!(!heard.starts_with(b"HTTP"), "{heard:?}");
    }
    secure.app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_for_new_connections_and_a_bad_one_for_none() {
    let secure = Secure::start().await;
    let first = secure.signed.authority.clone();
    let mut old = secure.connect(&first, &TLS13, &["http/1.1"]).await.unwrap();
    ask(&mut old).await;
    // Half renewed: the key is still the old one's.
    let second = Signed::new();
    std::fs::write(&secure.cert, &second.cert).unwrap();
    let refused = secure.app.reloads("refused").await;
    secure.app.easel.signal(Signal::HUP);
    secure.app.wait_for_reload("refused", refused).await;
    let log = secure.app.easel.stderr();
    assert!(log.contains("cannot be used together"), "{log}");
    let ready = secure.app.client.get("/readyz", None).await.expect(200);
    assert_eq!(ready.json()["config"]["state"], "refused");
    secure.connect(&first, &TLS13, &[]).await.unwrap();

    std::fs::write(&secure.key, &second.key).unwrap();
    secure.app.reload().await;
    secure.connect(&first, &TLS13, &[]).await.unwrap_err();
    secure
        .connect(&second.authority, &TLS13, &[])
        .await
        .unwrap();
    ask(&mut old).await;
    secure.app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_file_that_does_not_fit() {
    let secure = Secure::start().await;
    let nothing = secure.app.directory().join("nothing.pem");
    std::fs::write(&nothing, "no PEM\n").unwrap();
    let missing = secure.app.directory().join("missing.pem");
    let (cert, key) = (&secure.cert, &secure.key);
    let second = secure.app.directory().join("second.key");
    std::fs::write(&second, Signed::new().key).unwrap();
    for (cert, key, expected) in [
        (cert, &second, "cannot be used together"),
        (&missing, key, "[tls] cert:"),
        (cert, &missing, "[tls] key:"),
        (&nothing, key, "there is no certificate in"),
        (cert, &nothing, "there is no private key in"),
        (key, cert, "there is no certificate in"),
    ] {
        let output = crate::support::run_easel(
            secure.app.directory(),
            &["check"],
            &[
                ("EASEL__TLS__CERT", cert.to_str().unwrap()),
                ("EASEL__TLS__KEY", key.to_str().unwrap()),
            ],
        );
        let output = output.expect_failure(1);
        assert!(output.stderr.contains(expected), "{expected}: {output:?}");
        assert!(!output.stderr.contains("PRIVATE"), "{output:?}");
    }
    secure.app.finish().await;
}
