use std::{collections::BTreeSet, time::Duration};

use ::base64::prelude::{BASE64_STANDARD, Engine as _};
use chrono::TimeDelta;
use futures_util::{FutureExt as _, TryStreamExt as _, future};
use image::ImageFormat;
use tempfile::TempDir;

use super::*;
use crate::{
    catalog::ImageSize,
    images::{Base64Writer, encode_base64, encoded_len, sniff::samples},
};

const MAX: u64 = 16 << 20;
const HOUR: Duration = Duration::from_hours(1);

async fn open() -> (ImageStore, TempDir) {
    let directory = TempDir::new().unwrap();
    let store = ImageStore::open(directory.path().join("images"), MAX)
        .await
        .unwrap();
    (store, directory)
}

async fn write(store: &ImageStore, bytes: &[u8], chunk: usize) -> Result<StoredImage, StoreError> {
    let mut writer = store.create().await?;
    for bytes in bytes.chunks(chunk) {
        writer.write(bytes).await?;
    }
    writer.finish().await
}

async fn write_base64(
    store: &ImageStore,
    text: &[u8],
    chunk: usize,
) -> Result<StoredImage, StoreError> {
    let mut writer = Base64Writer::new(store.create().await?);
    for text in text.chunks(chunk) {
        writer.write(text).await?;
    }
    writer.finish().await
}

async fn read(store: &ImageStore, image: &StoredImage) -> Option<Vec<u8>> {
    let (total, stream) = store.read(image.id, image.info.format).await.unwrap()?;
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert!(chunks.iter().all(|chunk| chunk.len() <= 256 * 1024));
    let bytes = chunks.concat();
    assert_eq!(bytes.len() as u64, total);
    Some(bytes)
}

/// Every file below the store, and every directory, as `hour/name`.
fn tree(store: &ImageStore) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for hour in fs::read_dir(store.directory()).unwrap() {
        let hour = hour.unwrap();
        let name = hour.file_name().into_string().unwrap();
        if hour.file_type().unwrap().is_dir() {
            for file in fs::read_dir(hour.path()).unwrap() {
                let file = file.unwrap().file_name().into_string().unwrap();
                found.insert(format!("{name}/{file}"));
            }
        }
        found.insert(name);
    }
    found
}

fn files(store: &ImageStore) -> BTreeSet<String> {
    let mut tree = tree(store);
    tree.retain(|name| name.contains('/'));
    tree
}

/// About 3 MiB that do not compress.
fn large_png() -> Vec<u8> {
    samples::encode(&samples::pixels(1024, 1024), ImageFormat::Png)
}

#[tokio::test]
async fn only_we_may_look_into_a_new_store() {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = |store: &ImageStore| {
        let metadata = fs::metadata(store.directory()).unwrap();
        metadata.permissions().mode() & 0o777
    };
    let (store, directory) = open().await;
    assert_eq!(mode(&store), 0o700);
    // An operator who shares it may.
    let shared = directory.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o750)).unwrap();
    let store = ImageStore::open(shared, MAX).await.unwrap();
    assert_eq!(mode(&store), 0o750);
}

#[tokio::test]
async fn every_format_comes_back_as_it_was() {
    let (store, _directory) = open().await;
    for &(name, format, ref bytes) in samples::all() {
        let image = write(&store, bytes, 100).await.unwrap();
        assert_eq!(image.info.format, format, "{name}");
        assert_eq!(image.size_bytes, bytes.len() as u64);
        let place = format!(
            "{}/{}.{}",
            image.id.created_at().format("%Y%m%d%H"),
            image.id,
            format.extension()
        );
        assert!(files(&store).contains(&place), "{place}");
        assert_eq!(read(&store, &image).await.as_ref(), Some(bytes), "{name}");
    }
    assert_eq!(files(&store).len(), samples::all().len());
}

#[tokio::test]
async fn a_large_picture_in_any_chunks_raw_and_as_base64() {
    let (store, _directory) = open().await;
    let bytes = large_png();
    assert!(bytes.len() > 3 << 20);
    let text = BASE64_STANDARD.encode(&bytes);
    for chunk in [1000, 65_537, 262_144, 1 << 20, usize::MAX] {
        let raw = write(&store, &bytes, chunk).await.unwrap();
        let decoded = write_base64(&store, text.as_bytes(), chunk).await.unwrap();
        for image in [raw, decoded] {
            assert_eq!(image.info.size, ImageSize::new(1024, 1024));
            assert_eq!(image.size_bytes, bytes.len() as u64);
            assert_eq!(read(&store, &image).await.as_ref(), Some(&bytes));
        }
        let (total, stream) = store
            .read(raw.id, PictureFormat::Png)
            .await
            .unwrap()
            .unwrap();
        let chunks: Vec<Bytes> = encode_base64(stream).try_collect().await.unwrap();
        assert!(chunks.iter().all(|chunk| chunk.len() <= 256 * 1024));
        assert_eq!(encoded_len(total), text.len() as u64);
        assert_eq!(chunks.concat(), text.as_bytes());
    }
}

#[tokio::test]
async fn what_is_no_whole_picture_leaves_nothing_behind() {
    let (store, _directory) = open().await;
    let png = large_png();
    let text = BASE64_STANDARD.encode(&png);
    let is_refused = |result: Result<StoredImage, StoreError>| {
        assert!(
            matches!(result, Err(StoreError::NotAPicture(_))),
            "{result:?}"
        );
        assert_eq!(files(&store), BTreeSet::new());
    };
    is_refused(write(&store, b"", 1).await);
    is_refused(write(&store, b"<html>502 Bad Gateway</html>", 5).await);
    for length in [1, 20, 262_143, 262_144, 262_145, 600_000, png.len() - 1] {
        is_refused(write(&store, &png[..length], 100_000).await);
        is_refused(write_base64(&store, &text.as_bytes()[..length], 100_000).await);
    }
    // Broken in the third buffer.
    let mut broken = text.clone().into_bytes();
    broken[700_000] = b'\\';
    is_refused(write_base64(&store, &broken, 100_000).await);
}

/// The picture was paid for, and may have been shown by then.
#[tokio::test]
async fn what_follows_the_end_of_a_picture_is_left_out() {
    let (store, _directory) = open().await;
    let whole = [large_png(), samples::png(), samples::jpeg()];
    for picture in &whole {
        for surplus in [&b"\n"[..], b"PK\x03\x04", &vec![0xFF; 300_000]] {
            let bytes = [&picture[..], surplus].concat();
            let text = BASE64_STANDARD.encode(&bytes);
            let closed = format!("{}////", BASE64_STANDARD.encode(picture));
            for chunk in [100_000, 7, 1] {
                if chunk < 100 && bytes.len() > 100_000 {
                    continue;
                }
                let written = [
                    write(&store, &bytes, chunk).await,
                    write_base64(&store, text.as_bytes(), chunk).await,
                    write_base64(&store, closed.as_bytes(), chunk).await,
                ];
                for stored in written {
                    let stored = stored.unwrap();
                    let read = fs::read(store.path(stored.id, stored.info.format)).unwrap();
                    assert_eq!(stored.size_bytes, read.len() as u64);
                    let rest = read.strip_prefix(&picture[..]).unwrap();
                    // Between two pictures of one JPEG there may be such bytes, and no more than one waits.
                    assert!(
                        rest.len() <= usize::from(picture.starts_with(&[0xFF])),
                        "{}",
                        rest.len()
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn a_picture_abandoned_or_refused_leaves_nothing_behind() {
    let (store, _directory) = open().await;
    let png = large_png();
    let mut writer = store.create().await.unwrap();
    writer.write(&png[..1 << 20]).await.unwrap();
    assert_eq!(
        files(&store),
        BTreeSet::from([format!(
            "{}/{}.part",
            hour_name(writer.id().created_at()),
            writer.id()
        )])
    );
    // Nobody reads it before it is whole.
    let early = store.read(writer.id(), PictureFormat::Png).await.unwrap();
    assert!(early.is_none());
    drop(writer);
    assert_eq!(files(&store), BTreeSet::new());
}

#[tokio::test]
async fn the_largest_picture_fits_and_one_byte_more_does_not() {
    let directory = TempDir::new().unwrap();
    let bytes = samples::png();
    let text = BASE64_STANDARD.encode(&bytes);
    let max = bytes.len() as u64;
    for (max, fits) in [(max, true), (max - 1, false), (0, false)] {
        let store = ImageStore::open(directory.path().to_owned(), max)
            .await
            .unwrap();
        for result in [
            write(&store, &bytes, 100).await,
            write_base64(&store, text.as_bytes(), 100).await,
        ] {
            match result {
                Ok(_) => assert!(fits),
                Err(StoreError::TooLarge(limit)) => assert!(!fits && limit == max),
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_endless_picture_is_stopped_at_the_limit() {
    let directory = TempDir::new().unwrap();
    let max = 1 << 20;
    let store = ImageStore::open(directory.path().to_owned(), max)
        .await
        .unwrap();
    let mut writer = store.create().await.unwrap();
    let jpeg = samples::jpeg();
    writer.write(&jpeg[..jpeg.len() - 2]).await.unwrap();
    let data = vec![0x11; 50_000];
    let mut written = 0;
    let stopped = loop {
        match writer.write(&data).await {
            Ok(()) => written += 50_000,
            Err(error) => break error,
        }
        assert!(written <= max);
    };
    assert!(matches!(stopped, StoreError::TooLarge(limit) if limit == max));
    assert!(writer.finish().await.is_err());
    assert_eq!(files(&store), BTreeSet::new());
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_found_out_at_once() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, []).unwrap();
    for place in [file.clone(), file.join("images")] {
        let refused = ImageStore::open(place, MAX).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "could not prepare the directory of a picture"
        );
    }
}

#[tokio::test]
async fn after_a_failed_write_there_is_no_picture_with_a_hole() {
    let (store, _directory) = open().await;
    let png = large_png();
    let mut writer = store.create().await.unwrap();
    let hour = store.hour_directory(writer.id());
    fs::write(&hour, []).unwrap();
    let failed = writer.write(&png[..300_000]).await;
    assert!(matches!(failed, Err(StoreError::Io { .. })), "{failed:?}");
    fs::remove_file(&hour).unwrap();
    assert!(writer.write(&png[300_000..]).await.is_err());
    assert!(writer.finish().await.is_err());
    assert_eq!(files(&store), BTreeSet::new());
}

/// The one blocking thread is kept busy, so that the write is certainly dropped halfway.
#[test]
fn a_dropped_write_leaves_neither_a_hole_nor_a_file() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (store, _directory) = open().await;
        let png = large_png();
        for before in [0, 300_000] {
            let mut writer = store.create().await.unwrap();
            writer.write(&png[..before]).await.unwrap();
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || wait.recv());
            let dropped = writer.write(&png[before..before + 600_000]).now_or_never();
            assert!(dropped.is_none());
            go.send(()).unwrap();
            busy.await.unwrap().unwrap();
            assert!(writer.write(&png[before + 600_000..]).await.is_err());
            assert!(writer.finish().await.is_err());
            assert_eq!(files(&store), BTreeSet::new());
        }
    });
}

#[tokio::test]
async fn a_deleted_picture_is_gone_but_who_reads_it_reads_on() {
    let (store, _directory) = open().await;
    let bytes = large_png();
    let image = write(&store, &bytes, 1 << 20).await.unwrap();
    let (_, stream) = store
        .read(image.id, PictureFormat::Png)
        .await
        .unwrap()
        .unwrap();
    for _ in 0..2 {
        store.delete(image.id, PictureFormat::Png).await.unwrap();
    }
    assert_eq!(read(&store, &image).await, None);
    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert_eq!(chunks.concat(), bytes);
}

/// A copy of what was relayed.
async fn copy(store: &ImageStore, bytes: &[u8]) -> StoredImage {
    let mut writer = store.tee(Keep::IfPossible);
    writer.write(bytes).await.unwrap();
    writer.finish_unsynced().await.unwrap()
}

fn inode(store: &ImageStore, image: &StoredImage) -> u64 {
    let path = store.unsynced_path(image.id, image.info.format);
    fs::metadata(path).unwrap().ino()
}

fn after_a_crash_of_the_machine(store: &ImageStore) -> ImageStore {
    ImageStore(Arc::new(Place {
        directory: store.directory().to_owned(),
        max_size_bytes: MAX,
        is_well: AtomicBool::new(true),
        boot: uuid::Uuid::now_v7().simple().to_string(),
        spares: Mutex::default(),
        bucket: None,
    }))
}

#[tokio::test]
async fn a_copy_is_written_over_a_former_one() {
    let (store, _directory) = open().await;
    let (long, short) = (samples::png_of(900_000), samples::png_of(300_000));
    let former = copy(&store, &long).await;
    let file = inode(&store, &former);
    store.retire(former.id, former.info.format);
    assert_eq!(read(&store, &former).await, None);
    let next = copy(&store, &short).await;
    assert_eq!(inode(&store, &next), file);
    assert_eq!(read(&store, &next).await, Some(short.clone()));
    assert_eq!(read(&store, &former).await, None);
    assert_eq!(files(&store).len(), 1);

    // One that is to be there for long has a file of its own, and so has one that is read.
    store.retire(next.id, next.info.format);
    let kept = write(&store, &short, 1 << 20).await.unwrap();
    assert_eq!(files(&store).len(), 2);
    let again = copy(&store, &long).await;
    assert_eq!(inode(&store, &again), file);
    let (_, reading) = store
        .read(again.id, again.info.format)
        .await
        .unwrap()
        .unwrap();
    store.retire(again.id, again.info.format);
    let other = copy(&store, &short).await;
    assert_ne!(inode(&store, &other), file);
    let chunks: Vec<Bytes> = reading.try_collect().await.unwrap();
    assert_eq!(chunks.concat(), long);
    assert_eq!(read(&store, &kept).await, Some(short));

    store.retire(other.id, other.info.format);
    let now = ImageId::new().created_at();
    store.sweep(HOUR, now).await.unwrap();
    assert_eq!(files(&store).len(), 1, "what waits to be written over goes");
}

#[tokio::test]
async fn an_unsynced_copy_ends_with_the_machines_run() {
    let (store, _directory) = open().await;
    let bytes = large_png();
    let (lost, kept) = (copy(&store, &bytes).await, copy(&store, &bytes).await);
    for _ in 0..2 {
        let made = store.make_durable(kept.id, kept.info.format);
        made.await.unwrap();
    }
    let found = [(lost.id, lost.info.format), (kept.id, kept.info.format)];
    assert_eq!(store.find(found).await.unwrap(), [true, true]);
    let later = after_a_crash_of_the_machine(&store);
    assert_eq!(later.find(found).await.unwrap(), [false, true]);
    assert_eq!(read(&later, &lost).await, None);
    assert_eq!(read(&later, &kept).await, Some(bytes));
    let over = lost.id.created_at() + TimeDelta::hours(2);
    assert_eq!(later.sweep(HOUR, over).await.unwrap(), 2);
    assert_eq!(files(&store).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_what_is_written_over_his_picture() {
    let (store, _directory) = open().await;
    let relays = (0..8_usize).map(|relay| {
        let store = store.clone();
        async move {
            for round in 0..30 {
                let bytes = samples::png_of(200_000 + 1000 * relay + round);
                let image = copy(&store, &bytes).await;
                let format = image.info.format;
                let reader = async || {
                    let (_, stream) = store.read(image.id, format).await.unwrap()?;
                    let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
                    Some(chunks.concat())
                };
                let before = reader().await;
                assert_eq!(before.as_ref(), Some(&bytes));
                let retire = async {
                    let store = store.clone();
                    let retired =
                        tokio::task::spawn_blocking(move || store.retire(image.id, format));
                    retired.await.unwrap();
                };
                let ((), one, other) = future::join3(retire, reader(), reader()).await;
                for read in [one, other].into_iter().flatten() {
                    assert_eq!(read, bytes);
                }
            }
        }
    });
    future::join_all(relays).await;
    assert_eq!(
        files(&store)
            .iter()
            .filter(|name| !name.ends_with("part"))
            .count(),
        0
    );
}

#[tokio::test]
async fn a_file_that_was_cut_is_an_error_not_an_end() {
    let (store, _directory) = open().await;
    let image = write(&store, &large_png(), 1 << 20).await.unwrap();
    let (_, stream) = store
        .read(image.id, PictureFormat::Png)
        .await
        .unwrap()
        .unwrap();
    fs::File::options()
        .write(true)
        .open(store.path(image.id, PictureFormat::Png))
        .unwrap()
        .set_len(500_000)
        .unwrap();
    let result: io::Result<Vec<Bytes>> = stream.try_collect().await;
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn ids_of_other_kinds_lead_nowhere() {
    let (store, _directory) = open().await;
    for id in [
        "img_00000000000000000000000000000000",
        "img_ffffffffffffffffffffffffffffffff",
        "img_ffffffffffff7fffbfffffffffffffff",
        "img_ffffffffffff1fffbfffffffffffffff",
        "img_0193d6f0a0004000800000000000abcd",
    ] {
        let id: ImageId = id.parse().unwrap();
        let path = store.path(id, PictureFormat::Svg);
        assert_eq!(
            path.parent().and_then(Path::parent),
            Some(store.directory())
        );
        assert!(store.read(id, PictureFormat::Svg).await.unwrap().is_none());
        store.delete(id, PictureFormat::Svg).await.unwrap();
    }
}

/// An id as if made at `instant`.
fn id_of(instant: DateTime<Utc>, number: u16) -> ImageId {
    format!(
        "img_{:012x}70008000{number:012x}",
        instant.timestamp_millis()
    )
    .parse()
    .unwrap()
}

fn now() -> DateTime<Utc> {
    "2026-11-20T12:30:00Z".parse().unwrap()
}

/// A file as if made at `instant`; returns its place.
fn put(store: &ImageStore, instant: DateTime<Utc>, number: u16, extension: &str) -> String {
    let id = id_of(instant, number);
    let directory = store.hour_directory(id);
    fs::create_dir_all(&directory).unwrap();
    let name = format!("{id}.{extension}");
    fs::write(directory.join(&name), b"x").unwrap();
    format!("{}/{name}", hour_name(id.created_at()))
}

#[tokio::test]
async fn sweeping_takes_what_is_over_and_nothing_else() {
    let (store, _directory) = open().await;
    let minutes = TimeDelta::minutes;
    let mut kept = BTreeSet::new();
    for age in [0, 29, 31, 59, -5, -90] {
        kept.insert(put(&store, now() - minutes(age), 1, "png"));
    }
    for (age, extension) in [
        (60, "png"),
        (61, "jpeg"),
        (89, "webp"),
        (91, "gif"),
        (5000, "svg"),
        // A copy from an earlier run of the machine.
        (62, "0123456789abcdef0123456789abcdef.png"),
    ] {
        put(&store, now() - minutes(age), 2, extension);
    }
    // Temporary files have a day.
    kept.insert(put(&store, now() - minutes(10), 3, "part"));
    kept.insert(put(&store, now() - minutes(24 * 60 - 1), 3, "part"));
    put(&store, now() - minutes(24 * 60), 3, "part");
    // What is not ours.
    let strange = put(&store, now() - minutes(6000), 4, "html");
    let hour = strange.split_once('/').unwrap().0;
    kept.insert(strange.clone());
    for name in [
        "notes.txt".to_owned(),
        format!("{}.png", id_of(now() - minutes(9000), 5)),
        format!("{}.png.bak", id_of(now() - minutes(6000), 5)),
        format!("{}.bak.png", id_of(now() - minutes(6000), 5)),
        format!("gen_{}.png", "0".repeat(32)),
    ] {
        fs::write(store.directory().join(hour).join(&name), b"x").unwrap();
        kept.insert(format!("{hour}/{name}"));
    }
    for directory in ["lost+found", "202611", "2026112099", "20261120110"] {
        fs::create_dir(store.directory().join(directory)).unwrap();
        let name = format!("{directory}/{}.png", id_of(now() - minutes(6000), 6));
        fs::write(store.directory().join(&name), b"x").unwrap();
        kept.insert(name);
    }
    fs::write(store.directory().join("2026111000"), b"x").unwrap();
    // An empty directory of old, and one of now.
    for directory in ["2026111100", "2026112012"] {
        fs::create_dir_all(store.directory().join(directory)).unwrap();
    }

    assert_eq!(store.sweep(HOUR, now()).await.unwrap(), 7);
    assert_eq!(files(&store), kept);
    let tree = tree(&store);
    assert!(tree.contains("2026111000") && tree.contains("2026112012"));
    assert!(!tree.contains("2026111100"));
    let hours = kept.iter().map(|name| name.split_once('/').unwrap().0);
    let mut expected: BTreeSet<&str> = hours.collect();
    expected.extend(["2026111000", "2026112012"]);
    let directories = tree.iter().filter(|name| !name.contains('/'));
    assert_eq!(
        directories.map(String::as_str).collect::<BTreeSet<_>>(),
        expected
    );

    assert_eq!(store.sweep(HOUR, now()).await.unwrap(), 0);
    assert_eq!(store.sweep(Duration::MAX, now()).await.unwrap(), 0);
    assert_eq!(files(&store), kept);
}

#[tokio::test]
async fn sweeping_goes_on_behind_a_file_that_cannot_be_removed() {
    let (store, _directory) = open().await;
    // A directory with a picture's name is not removed as a file.
    let id = id_of(now() - TimeDelta::hours(9), 1);
    fs::create_dir_all(store.path(id, PictureFormat::Png)).unwrap();
    for number in 0..1200 {
        put(&store, now() - TimeDelta::hours(9), number + 2, "png");
        put(&store, now() - TimeDelta::hours(7), number, "png");
    }
    assert!(store.sweep(HOUR, now()).await.is_err());
    assert_eq!(files(&store).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_readers_and_several_sweepers_at_once() {
    let (store, _directory) = open().await;
    let other = ImageStore::open(store.directory().to_owned(), MAX)
        .await
        .unwrap();
    let now = ImageId::new().created_at();
    for number in 0..2000 {
        put(&store, now - TimeDelta::hours(5), number, "png");
    }
    let old = files(&store).len() as u64;
    let bytes = large_png();
    let sweeps = future::join_all((0..6).map(|number| {
        let store = if number % 2 == 0 { &store } else { &other };
        store.sweep(4 * HOUR, now)
    }));
    let writes = future::join_all((0..24).map(|number| {
        let (store, bytes) = (&store, &bytes);
        async move {
            let mut writer = store.create().await.unwrap();
            for bytes in bytes.chunks(100_000 + number) {
                writer.write(bytes).await.unwrap();
                tokio::task::yield_now().await;
            }
            let image = writer.finish().await.unwrap();
            assert_eq!(read(store, &image).await.as_ref(), Some(bytes));
            image
        }
    }));
    let (sweeps, images) = future::join(sweeps, writes).await;
    let removed: u64 = sweeps.into_iter().map(Result::unwrap).sum();
    assert_eq!(removed, old);
    let names: BTreeSet<ImageId> = images.iter().map(|image| image.id).collect();
    assert_eq!(names.len(), 24);
    assert_eq!(files(&store).len(), 24);
    for image in &images {
        assert_eq!(read(&other, image).await.as_ref(), Some(&bytes));
    }
}
