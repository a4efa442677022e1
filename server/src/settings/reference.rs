//! The reference of all settings, as Markdown. `docs/reference/configuration.md` is this text.

use std::fmt::Write;

use super::TABLE;

const OPENING: &str = "\
# Configuration

<!-- Generated: `leasehold config --markdown > docs/reference/configuration.md`. -->

Every setting of `leasehold serve` can be given as a flag, as an environment variable or in a TOML
file; a flag wins over the environment, and the environment over the file. The file is
`leasehold.toml` of the working directory if it is there, or what `--config FILE` (`LEASEHOLD_CONFIG`) names. A key that
does not exist is an error. `leasehold config` shows what is in force and where it came from.

";

const CLOSING: &str = "
## Users

Without users everybody who reaches the server may do everything, so it listens on this machine
only. `leasehold user add NAME` writes users to `users_file`; they can stand in the configuration
file as well:

```toml
[[users]]
name = \"shop\"
password_hash = \"$argon2id$v=19$…\" # of `leasehold user add`, or
token_hashes = [\"…\"] # hex SHA-256 of bearer tokens, of `leasehold user add --with-token`
permissions = [{ on = \"orders*\", allow = [\"publish\", \"consume\"] }]
```

A running server looks at `users_file` and at its certificates every two seconds and reads them
again when they changed; after SIGHUP it reads the configuration file's users again as well (a
server that was started at a terminal ends by SIGHUP). New connections are shown the renewed
certificate. Whoever was changed or taken out is a stranger from then on, and its streams end. A
file that is not acceptable is logged with its line and changes nothing, nor does a certificate
that does not fit its key. Nor does a file without a user: with none everybody could do everything,
which takes a restart.
";

/// The whole page.
pub fn markdown() -> String {
    let mut page = OPENING.to_owned();
    page.push_str("| key | default | flag, variable | what it does |\n|---|---|---|---|\n");
    for setting in TABLE {
        let default = match setting.default {
            "" => "–".to_owned(),
            // Not as code: `cargo xtask tidy` would look for such a file in the repository.
            path if path.starts_with("./") => path.to_owned(),
            default => format!("`{default}`"),
        };
        let help = setting.help.trim();
        writeln!(
            page,
            "| `{}` | {default} | `--{}`<br>`{}` | {help} Takes {}. |",
            setting.key,
            setting.flag(),
            setting.variable(),
            setting.form.replace('|', "\\|"),
        )
        .expect("a String takes everything");
    }
    page.push_str(CLOSING);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/configuration.md");
        let found = std::fs::read_to_string(path).unwrap_or_default();
        let again = "cargo run -- config --markdown > docs/reference/configuration.md";
        assert_eq!(found, markdown(), "the page is out of date: {again}");
    }
}
