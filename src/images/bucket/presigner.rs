//! Links straight to the bucket, signed with its credentials.
//!
//! Credentials may change by the hour, and asking for them is a call. So the newest ones are kept here, and a
//! link is made from them without waiting.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use object_store::{
    CredentialProvider,
    aws::{AmazonS3, AmazonS3Builder, AwsCredential, AwsCredentialProvider},
    path::Path,
    signer::Signer as _,
};

use super::key;
use crate::{ids::ImageId, images::PictureFormat};

/// Makes links that open at the bucket. Cheap to clone.
#[derive(Clone)]
pub struct Presigner {
    signed: Arc<AmazonS3>,
    prefix: Path,
    source: AwsCredentialProvider,
    newest: Arc<Newest>,
}

/// The credentials of now, as far as they are known.
#[derive(Default)]
struct Newest(RwLock<Option<Arc<AwsCredential>>>);

impl Presigner {
    /// With the address of `builder` and the credentials of `store`.
    pub(super) fn new(
        builder: AmazonS3Builder,
        prefix: Path,
        store: &AmazonS3,
    ) -> Result<Self, String> {
        let newest = Arc::new(Newest::default());
        let signed = builder
            .with_credentials(Arc::clone(&newest) as AwsCredentialProvider)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            signed: Arc::new(signed),
            prefix,
            source: Arc::clone(store.credentials()),
            newest,
        })
    }

    /// Asks for the credentials of now. When that fails, the last ones go on.
    pub(super) async fn refresh(&self) {
        match self.source.get_credential().await {
            Ok(credential) => {
                let mut newest = self
                    .newest
                    .0
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                *newest = Some(credential);
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "there are no new credentials for links to the bucket"
            ),
        }
    }

    /// A link that opens for so long; `None` when there are no credentials yet.
    pub(in crate::images) fn sign(
        &self,
        id: ImageId,
        format: PictureFormat,
        time: Duration,
    ) -> Option<String> {
        let key = key(&self.prefix, id, format);
        // Ready at once: the only thing it could wait for is kept above.
        let link = self.signed.signed_url(http::Method::GET, &key, time);
        let link = link.now_or_never()?;
        link.ok().map(String::from)
    }
}

#[async_trait]
impl CredentialProvider for Newest {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let newest = self.0.read().unwrap_or_else(PoisonError::into_inner);
        newest.clone().ok_or_else(|| object_store::Error::Generic {
            store: "S3",
            source: "there are no credentials yet".into(),
        })
    }
}

/// Credentials are not shown.
impl fmt::Debug for Newest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Newest")
    }
}

/// Credentials are not shown.
impl fmt::Debug for Presigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Presigner").finish_non_exhaustive()
    }
}
