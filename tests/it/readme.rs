//! The README's table of models is the catalog's.

use std::{env, fs, path::Path};

use easel::catalog::Catalog;

const BEGIN: &str = "`UPDATE_README=1 cargo test --test it readme` renews it -->\n";
const END: &str = "<!-- /models -->";

#[test]
fn the_readme_lists_the_models_of_the_catalog() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let begin = readme.find(BEGIN).expect("the mark before the table") + BEGIN.len();
    let end = readme.find(END).expect("the mark behind the table");
    let table = Catalog::load(None).unwrap().markdown_table();
    let table = format!("\n{}\n\n", table.trim());
    if env::var_os("UPDATE_README").is_some() {
        let renewed = format!("{}{table}{}", &readme[..begin], &readme[end..]);
        fs::write(&path, renewed).unwrap();
        return;
    }
    assert_eq!(&readme[begin..end], table);
}
