//! What the tests of several adapters share: goldens, a server that says what it is told to, and a sink that
//! keeps what it is given.

pub(super) mod fake;
pub(super) mod goldens;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{Encoding, PictureEvent, PictureSink, ProviderError};
use crate::config::{OnDisconnect, ProviderConfig};

/// Keeps what it is given: per picture its encoding, its content, and whether it is whole.
#[derive(Default)]
pub(super) struct Pictures {
    pub(super) taken: Vec<(Encoding, String, bool)>,
    pub(super) slowness: Duration,
}

impl PictureSink for Pictures {
    fn accept(&mut self, event: PictureEvent) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            tokio::time::sleep(self.slowness).await;
            match event {
                PictureEvent::Begin(encoding) | PictureEvent::Perhaps(encoding) => {
                    self.taken.push((encoding, String::new(), false));
                }
                PictureEvent::Data(bytes) => {
                    let picture = self.taken.last_mut().unwrap();
                    picture.1.push_str(std::str::from_utf8(&bytes).unwrap());
                }
                PictureEvent::End => self.taken.last_mut().unwrap().2 = true,
                PictureEvent::Draft { .. } => panic!("nobody asked for drafts"),
                PictureEvent::About(_) => {}
                PictureEvent::Abandon => drop(self.taken.pop().unwrap()),
            }
            Ok(())
        })
    }
}

impl Pictures {
    pub(super) fn whole(&self) -> Vec<&str> {
        let whole = self.taken.iter().filter(|(_, _, whole)| *whole);
        whole.map(|(_, content, _)| content.as_str()).collect()
    }
}

/// A PNG of this size.
pub(super) fn png(width: u32, height: u32) -> Bytes {
    let painted = image::RgbaImage::new(width, height);
    let mut file = std::io::Cursor::new(Vec::new());
    painted
        .write_to(&mut file, image::ImageFormat::Png)
        .unwrap();
    file.into_inner().into()
}

/// A section that waits for nobody long.
pub(super) fn config(base_url: String) -> ProviderConfig {
    ProviderConfig {
        adapter: "openai".to_owned(),
        enabled: true,
        base_url: Some(base_url),
        api_key: Some("sk-test-secret".into()),
        api_key_missing: None,
        timeout: Duration::from_secs(20),
        idle_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(10),
        max_in_flight: 8,
        result_hosts: Vec::new(),
        retry_after_send: false,
        on_disconnect: OnDisconnect::Finish,
        markup_basis_points: 0,
        delay: Duration::ZERO,
        cloud: None,
    }
}
