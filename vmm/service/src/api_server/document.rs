//! The description of the API, which is in the tree as `docs/openapi.json`.

use utoipa::OpenApi;

use super::routes::Described;

/// The OpenAPI document.
#[must_use]
pub fn document() -> String {
    // Plain data always has a JSON form.
    Described::openapi().to_pretty_json().unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_in_the_tree_is_that_of_the_server() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        if std::env::var_os("BATON_WRITE_OPENAPI").is_some() {
            std::fs::write(path, document()).expect("written");
        }
        let in_tree = std::fs::read_to_string(path).expect("the document");
        assert!(
            in_tree == document(),
            "docs/openapi.json is not what the server has; BATON_WRITE_OPENAPI=1 with this test writes it"
        );
    }
}
