//! Pictures at rest: written in chunks, served over signed links, deleted when their time is over.
//!
//! Knows nothing of who asked or what it cost. A directory or a bucket keeps them. A picture's place and age follow from its id and format
//! alone (`2026112011/img_….png`: the hour of the id's timestamp), so neither serving nor sweeping
//! needs the database, and a crash leaves nothing that the sweeper does not find.

mod base64;
mod bucket;
mod copies;
mod fetch;
mod links;
mod sniff;
mod store;
mod sweep;
mod upload;
mod writer;

pub use self::{
    base64::{Base64Decoder, Base64Encoder, encode_base64, encoded_len},
    bucket::{Bucket, Fault, Presigner},
    copies::{Copies, Undelivered},
    fetch::{FetchError, Fetched, Fetcher},
    links::{LinkError, Links},
    sniff::{NotAPicture, PictureFormat, PictureInfo, Sniffer},
    store::{ImageStore, PictureStream, StoreError, StoredImage, Temporary},
    upload::{Spool, Upload, UploadError, UploadWriter},
    writer::{Base64Writer, ImageWriter, Keep},
};
