//! Compiles again when a migration is added: `sqlx::migrate!` itself only watches the files it has seen. Takes what
//! the docs page is made of out of the archive that a crate brings, so that neither building nor reading needs a
//! network.

use std::{
    env,
    error::Error,
    fs,
    io::{Cursor, Read, Write},
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

/// Files of Swagger UI, by the end of their names in the archive, and what they are called here.
const FILES: [(&str, &str); 4] = [
    ("/dist/swagger-ui.css", "swagger-ui.css.gz"),
    ("/dist/swagger-ui-bundle.js", "swagger-ui-bundle.js.gz"),
    ("/NOTICE", "swagger-ui-notice.txt.gz"),
    ("/LICENSE", "swagger-ui-license.txt.gz"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed=.config/build.rs");
    let directory = env::var_os("OUT_DIR").ok_or("cargo does not say where to write")?;
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for (end, packed_name) in FILES {
        let is_it = |name: &str| {
            // At the top, or where builds are: sources have names like these.
            name.ends_with(end) && name.matches('/').count() == end.matches('/').count()
        };
        let name = archive
            .file_names()
            .filter_map(Result::ok)
            .find(|name| is_it(name))
            .ok_or_else(|| format!("there is no {end} in the archive"))?
            .into_owned();
        let mut bytes = Vec::new();
        archive.by_name(&name)?.read_to_end(&mut bytes)?;
        let file = fs::File::create(Path::new(&directory).join(packed_name))?;
        let mut packed = GzEncoder::new(file, Compression::best());
        packed.write_all(&bytes)?;
        packed.finish()?;
    }
    Ok(())
}
