//! What the tests of several adapters share: goldens, a server that says what it is told to, and a sink that
//! keeps what it is given.

pub(super) mod fake;
pub(super) mod goldens;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{About, Encoding, PictureEvent, PictureSink, ProviderError};
use crate::config::{OnDisconnect, ProviderConfig};

/// Keeps what it is given: per picture its encoding, its content, and whether it is whole.
#[derive(Default)]
pub(super) struct Pictures {
    pub(super) taken: Vec<(Encoding, String, bool)>,
    /// The same of drafts, with their numbers.
    pub(super) drafts: Vec<(u8, String, bool)>,
    /// What was said of pictures and drafts, in order.
    pub(super) abouts: Vec<About>,
    pub(super) slowness: Duration,
    pub(super) in_draft: bool,
}

impl PictureSink for Pictures {
    fn accept(&mut self, event: PictureEvent) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(async move {
            tokio::time::sleep(self.slowness).await;
            match event {
                PictureEvent::Begin(encoding) | PictureEvent::Perhaps(encoding) => {
                    self.in_draft = false;
                    self.taken.push((encoding, String::new(), false));
                }
                PictureEvent::Draft { index, .. } => {
                    self.in_draft = true;
                    self.drafts.push((index, String::new(), false));
                }
                PictureEvent::Data(bytes) => {
                    let (content, _) = self.current();
                    content.push_str(std::str::from_utf8(&bytes).unwrap());
                }
                PictureEvent::End => *self.current().1 = true,
                PictureEvent::About(about) => self.abouts.push(*about),
                PictureEvent::Abandon => drop(self.taken.pop().unwrap()),
            }
            Ok(())
        })
    }
}

impl Pictures {
    /// Content and wholeness of what has begun last.
    fn current(&mut self) -> (&mut String, &mut bool) {
        if self.in_draft {
            let (_, content, whole) = self.drafts.last_mut().unwrap();
            (content, whole)
        } else {
            let (_, content, whole) = self.taken.last_mut().unwrap();
            (content, whole)
        }
    }

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
