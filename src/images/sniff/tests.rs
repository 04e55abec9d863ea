use proptest::prelude::*;

use super::{samples, *};

fn sniff<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<PictureInfo, NotAPicture> {
    let mut sniffer = Sniffer::default();
    for chunk in chunks {
        sniffer.feed(chunk)?;
    }
    sniffer.finish()
}

fn info(format: PictureFormat) -> PictureInfo {
    PictureInfo {
        format,
        size: ImageSize::new(samples::WIDTH, samples::HEIGHT),
    }
}

fn check(bytes: &[u8], expected: Result<PictureFormat, &str>) {
    let expected = expected
        .map(info)
        .map_err(|message| NotAPicture(message.to_owned()));
    assert_eq!(sniff([bytes]), expected, "in one piece");
    assert_eq!(sniff(bytes.chunks(1)), expected, "byte by byte");
}

/// The bytes with others at `place`.
fn insert(bytes: &[u8], place: usize, others: &[u8]) -> Vec<u8> {
    [&bytes[..place], others, &bytes[place..]].concat()
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    memchr::memmem::find(bytes, what).unwrap()
}

#[test]
fn whole_pictures_are_told_with_their_size() {
    for &(name, format, ref bytes) in samples::all() {
        println!("{name}");
        check(bytes, Ok(format));
    }
}

#[test]
fn format_and_size_are_known_before_the_end() {
    for &(name, format, ref bytes) in samples::all() {
        let mut sniffer = Sniffer::default();
        assert_eq!(sniffer.info(), None);
        sniffer.feed(&bytes[..12]).unwrap();
        assert_eq!(sniffer.info().map(|info| info.format), Some(format));
        sniffer.feed(&bytes[12..bytes.len() - 1]).unwrap();
        assert_eq!(sniffer.info(), Some(info(format)), "{name}");
    }
}

#[test]
fn a_picture_cut_anywhere_is_refused() {
    for (name, _, bytes) in samples::all() {
        // White space behind an SVG is not part of it.
        let whole = bytes.trim_ascii_end().len();
        for length in 0..whole {
            let result = sniff([&bytes[..length]]);
            assert!(result.is_err(), "{name} cut at {length} of {whole}");
        }
    }
}

#[test]
fn something_behind_the_end_is_refused() {
    for (name, _, bytes) in samples::all() {
        for behind in [&b"PK\x03\x04"[..], b"<script>", b"\n\n\xFF"] {
            let result = sniff([&bytes[..], behind]);
            assert!(result.is_err(), "{name} with {behind:?} behind it");
        }
    }
}

#[test]
fn other_things_are_no_pictures() {
    let unknown = Err("it has the first bytes of no format that is known");
    check(b"", Err("it is empty"));
    check(b"\x89PNG", unknown);
    check(b"{\"error\":{\"message\":\"no\"}}", unknown);
    check(b"<html><body>502 Bad Gateway</body></html>", unknown);
    check(b"BM\x36\0\0\0\0\0\0\0\0\0\0\0", unknown);
    check(b"\0\0\0\x20ftypavif\0\0\0\0", unknown);
    check(b"RIFF\x24\0\0\0WAVEfmt ", unknown);
    check(b"GIF90a\0\0\0\0\0\0\0\0", unknown);
    check(b"%PDF-1.7\n%\xE2\xE3\xCF\xD3", unknown);
    check(&[0; 100], unknown);
    check(
        &b" ".repeat(100_000),
        Err("the bytes end before the svg picture does"),
    );
}

#[test]
fn png_structure() {
    let png = samples::png();
    let refused = |bytes: &[u8], why| check(bytes, Err(why));
    // A chunk of 3 MiB between header and pixels.
    let mut chunk = (3_u32 << 20).to_be_bytes().to_vec();
    chunk.extend(b"caBX");
    chunk.resize(chunk.len() + (3 << 20) + 4, 0x3B);
    check(&insert(&png, 33, &chunk), Ok(PictureFormat::Png));

    refused(
        &insert(&png, 8, b"\0\0\0\0IEND\0\0\0\0"),
        "a png without its header",
    );
    refused(
        &[&png[..33], b"\0\0\0\0IEND\0\0\0\0"].concat(),
        "a png without pixels",
    );
    refused(
        &insert(&png, 33, b"<html></html>"),
        "a png with a chunk that is none",
    );
    refused(
        &insert(&png, 33, b"\xFF\xFF\xFF\xFFteXt"),
        "a png with a chunk that is none",
    );
    let mut flat = png.clone();
    flat[20..24].fill(0);
    refused(&flat, "a side is 0 pixels long");
    refused(
        &[&png[..], &png].concat(),
        "something follows the end of the picture",
    );
}

#[test]
fn jpeg_structure() {
    let jpeg = samples::jpeg();
    let end = jpeg.len() - 2;
    let is_jpeg = |bytes: &[u8]| check(bytes, Ok(PictureFormat::Jpeg));

    // The size behind 20 segments of 64 KiB that contain whole pictures.
    let mut segment = vec![0xFF, 0xE1, 0xFF, 0xFF];
    segment.extend(&jpeg);
    segment.resize(2 + 0xFFFF, 0xD9);
    is_jpeg(&insert(&jpeg, 2, &segment.repeat(20)));
    // Fill bytes, restart markers, escaped bytes.
    is_jpeg(&insert(&jpeg, 2, &[0xFF; 7]));
    is_jpeg(&insert(&jpeg, end, &[0xFF, 0xD0, 0xFF, 0x00, 0xFF, 0xD7]));
    is_jpeg(&insert(&jpeg, end, &[0xFF, 0xFF, 0xFF]));
    // A second scan, as progressive ones have.
    let scan = find(&jpeg, &[0xFF, 0xDA]);
    is_jpeg(&insert(&jpeg, end, &jpeg[scan..end]));
    // A second picture behind padding; it must be whole, too.
    let two = [&jpeg[..], &[0; 100], &jpeg].concat();
    is_jpeg(&two);
    check(
        &two[..two.len() - 1],
        Err("the bytes end before the jpeg picture does"),
    );

    let none = "a jpeg with a segment that is none";
    check(&insert(&jpeg, 2, &[0xFF, 0xE1, 0x00, 0x01]), Err(none));
    check(&insert(&jpeg, 2, &[0xFF, 0xD8]), Err(none));
    check(&insert(&jpeg, 2, &[0xFF, 0x00]), Err(none));
    check(&insert(&jpeg, 20, b"<html>0123456789</html>"), Err(none));
    check(
        &insert(&jpeg, 2, &[0xFF, 0xD9]),
        Err("a jpeg without pixels"),
    );
    let frame = find(&jpeg, &[0xFF, 0xC0]);
    check(
        &[&jpeg[..frame], &jpeg[scan..]].concat(),
        Err("a jpeg with pixels before its size"),
    );
    let mut flat = jpeg.clone();
    flat[frame + 5..frame + 7].fill(0);
    check(&flat, Err("a side is 0 pixels long"));
}

#[test]
fn webp_structure() {
    let with_length = |mut bytes: Vec<u8>| {
        let length = u32::try_from(bytes.len() - 8).unwrap();
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    let none = Err("a webp with a chunk that is none");
    for webp in [
        samples::webp_lossy(),
        samples::webp_lossless(),
        samples::webp_extended(),
    ] {
        // Metadata of an odd length, with its padding and, at the end, without.
        let chunk = b"EXIF\x03\0\0\0abc";
        let padded = [&webp[..], chunk, b"\0"].concat();
        check(&with_length(padded), Ok(PictureFormat::Webp));
        let bare = [&webp[..], chunk].concat();
        check(&with_length(bare), Ok(PictureFormat::Webp));

        let overlong = [&webp[..], b"EXIF\x09\0\0\0abc\0"].concat();
        check(&with_length(overlong), none);
        check(&with_length([&webp[..], b"EXIF"].concat()), none);
        check(
            &[&webp[..], b"\0"].concat(),
            Err("something follows the end of the picture"),
        );
    }
    let mut no_key_frame = samples::webp_lossy();
    let frame = find(&no_key_frame, &[0x9D, 0x01, 0x2A]);
    no_key_frame[frame] = 0;
    check(&no_key_frame, Err("a webp without a key frame"));
    check(
        &with_length(samples::webp_extended()[..30].to_vec()),
        Err("a webp without pixels"),
    );
    check(b"RIFF\x04\0\0\0WEBP", Err("a webp without pixels"));
    check(b"RIFF\0\0\0\0WEBP", Err("a webp without pixels"));
}

#[test]
fn gif_structure() {
    let gif = samples::gif();
    let screen = 13 + 6;
    check(
        &[&gif[..screen], b"\x3B"].concat(),
        Err("a gif without pixels"),
    );
    check(
        &insert(&gif, screen, b"<html>"),
        Err("a gif with a block that is none"),
    );
    check(
        &insert(&gif, screen, &[0x21, 0xFF, 3, b'a', 0x3B, b'b', 1, 0x2C, 0]),
        Ok(PictureFormat::Gif),
    );
}

#[test]
fn a_gif_is_as_large_as_its_largest_frame() {
    let mut gif = samples::gif();
    let size = |gif: &[u8]| sniff([gif]).map(|info| info.size);
    let screen = ImageSize::new(67, 43);
    assert_eq!(size(&gif), Ok(screen));
    let frame = find(&gif, &[0x2C, 0, 0, 0, 0, 1, 0, 1, 0, 0]);
    // 1 from the left, 2000 wide; 3 high is less than the screen.
    gif[frame + 1..frame + 9].copy_from_slice(&[1, 0, 0, 0, 0xD0, 0x07, 3, 0]);
    assert_eq!(size(&gif), Ok(ImageSize::new(2001, 43)));
    gif[frame + 1..frame + 9].copy_from_slice(&[0xFF; 8]);
    check(&gif, Err("a side is longer than 65535 pixels"));
}

#[test]
fn svg_structure() {
    let size = |text: &str| sniff([text.as_bytes()]).map(|info| info.size);
    for (text, expected) in [
        ("<svg width='3' height='4'></svg>", ImageSize::new(3, 4)),
        (
            "\n <svg\nheight='4' width=\"3px\"></svg>\r\n\r\n",
            ImageSize::new(3, 4),
        ),
    ] {
        assert_eq!(size(text), Ok(expected), "{text}");
    }
    for text in [
        "<svg viewBox='0 0 3 4'></svg>",
        "<svg width='100%' height='4'></svg>",
        "<svg width='3'></svg>",
        "<svg width='0' height='4'></svg>",
        "<svg width='3.5' height='4'></svg>",
        "<svg width=3 height=4></svg>",
        "<svg title='width=\"3\" height=\"4\"' a></svg>",
        "<svg a='<' ><a/><</svg></svg>",
    ] {
        assert_eq!(size(text), Ok(None), "{text}");
    }
    for text in [
        "<svg></svg>x",
        "<svg></svg><script/>",
        "<svg><path d='M0 0'/>",
        "<svg><!-- </svg> -->",
        "<svg></svgx>",
        "<svg></svg",
        "<svg xmlns='http://www.w3.org/2000/svg'/>",
        "<svgx></svg>",
        "<?xml version='1.0'?><html></html></svg>",
        "<?xml version='1.0'?>text<svg></svg>",
        "<!-- <svg></svg>",
        "<!DOCTYPE html><html><svg></svg></html>",
        "<svg>\0</svg>",
        "<svg a='></svg>",
    ] {
        assert!(sniff([text.as_bytes()]).is_err(), "{text}");
        assert!(sniff(text.as_bytes().chunks(1)).is_err(), "{text}");
    }
    // The chunks do not matter where a byte order mark or a long construct stands.
    for (text, is_svg) in [
        (format!("<!-- {} --><svg></svg>", "x".repeat(60_000)), true),
        (format!("<!-- {} --><svg></svg>", "x".repeat(70_000)), false),
        (format!("{}<svg></svg>", " ".repeat(70_000)), true),
        ("<!-- 12 -->\u{FEFF}<svg></svg>".to_owned(), false),
    ] {
        let text = text.as_bytes();
        assert_eq!(sniff([text]).is_ok(), is_svg);
        assert_eq!(sniff(text.chunks(11)).is_ok(), is_svg);
    }
    // A prolog without end does not fill the memory.
    let mut sniffer = Sniffer::default();
    let endless = (0..)
        .map(|_| sniffer.feed(b"<!-- so much to say "))
        .take(10_000);
    assert!(endless.last().unwrap().is_err());
}

#[test]
fn a_refusal_lasts() {
    let mut sniffer = Sniffer::default();
    let refusal = sniffer.feed(b"<html><body></body></html>").unwrap_err();
    assert_eq!(sniffer.feed(&samples::png()), Err(refusal.clone()));
    assert_eq!(sniffer.finish(), Err(refusal));
}

#[test]
fn one_extension_a_format() {
    for format in PictureFormat::ALL {
        assert_eq!(
            PictureFormat::from_extension(format.extension()),
            Some(format)
        );
        assert_eq!(PictureFormat::from(OutputFormat::from(format)), format);
        assert_eq!(OutputFormat::from(format).as_str(), format.extension());
        assert!(format.content_type().starts_with("image/"));
    }
    for refused in ["", "PNG", "jpg", "part", "png/", ".png", "html"] {
        assert_eq!(PictureFormat::from_extension(refused), None, "{refused}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whole, broken or torn: the verdict is that of the bytes, not of their chunking.
    #[test]
    fn any_chunking_gives_the_same(
        sample in any::<prop::sample::Index>(),
        broken in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        behind in proptest::collection::vec(any::<u8>(), 0..3),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let mut bytes = sample.get(samples::all()).2.clone();
        if let Some((place, byte)) = broken {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.extend(behind);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let chunks = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        prop_assert_eq!(sniff(chunks).ok(), sniff([&bytes[..]]).ok());
    }

    /// Nothing panics, whatever follows the first bytes of a picture.
    #[test]
    fn any_bytes_get_a_verdict(
        sample in any::<prop::sample::Index>(),
        head in 0_usize..60,
        rest in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = &sample.get(samples::all()).2;
        let head = &bytes[..head.min(bytes.len())];
        let whole = sniff([head, &rest]);
        let pieces = sniff(head.chunks(1).chain(rest.chunks(1)));
        prop_assert_eq!(whole.ok(), pieces.ok());
    }
}

#[test]
fn a_size_beyond_reason_is_no_picture() {
    let (_, _, png) = samples::all()
        .iter()
        .find(|(_, format, _)| *format == PictureFormat::Png)
        .unwrap();
    for (side, fine) in [(65_535_u32, true), (65_536, false), (u32::MAX >> 1, false)] {
        let mut lying = png.clone();
        lying[16..20].copy_from_slice(&side.to_be_bytes());
        assert_eq!(sniff([&lying[..]]).is_ok(), fine, "{side}");
    }
}
