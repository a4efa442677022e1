//! Opening what `--on` names, with credentials put into the URL where the client looks for them.

use anyhow::{Context, Result};
use leasehold::{ErrorKind, Leasehold};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::cli::Global;
use crate::failure::Failure;

/// What may stand in a user name or password without being escaped.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Opens the engine, under a label that others see.
pub async fn open(global: &Global, label: Option<String>) -> Result<Leasehold> {
    let handle = leasehold::connect(&url(global)?).await.map_err(|mut error| {
        if error.kind == ErrorKind::Unavailable && is_web(&global.on) {
            error
                .wrong
                .push_str("; start a server with `leasehold serve`, or name another with --on URL");
        }
        error
    })?;
    Ok(match label {
        Some(label) => handle.with_label(label),
        None => handle,
    })
}

fn is_web(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

/// The URL with the credentials in it.
fn url(global: &Global) -> Result<String> {
    let escape = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
    let credentials = match (&global.user, &global.password, &global.token) {
        (Some(user), Some(password), _) => format!("{}:{}", escape(user), escape(password)),
        (Some(user), None, _) => escape(user),
        (None, _, Some(token)) => format!(":{}", escape(token)),
        (None, ..) => return Ok(global.on.clone()),
    };
    let web = ["http://", "https://"].iter().find(|scheme| global.on.starts_with(**scheme));
    let Some(scheme) = web else {
        // The environment may name a user for another URL.
        return Ok(global.on.clone());
    };
    let rest = &global.on[scheme.len()..];
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        let wrong = "the URL has a user and one is given beside it; leave one of them out";
        return Err(Failure::usage(wrong))
            .context(format!("connect to {}", without_user(&global.on)));
    }
    Ok(format!("{scheme}{credentials}@{rest}"))
}

/// Lets a command that is started find the same engine, by one variable with the credentials in
/// it: programs that use the library look at the URL, not at what this command line takes.
pub fn pass_on(global: &Global, command: &mut tokio::process::Command) -> Result<()> {
    command.env("LEASEHOLD_URL", url(global)?);
    for variable in ["LEASEHOLD_USER", "LEASEHOLD_PASSWORD", "LEASEHOLD_BEARER_TOKEN"] {
        command.env_remove(variable);
    }
    Ok(())
}

/// A URL fit to be shown.
pub fn without_user(url: &str) -> String {
    match (url.find("://"), url.find('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}{}", &url[..scheme + 3], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}

/// Who asks, as others see it: the user, the machine, the process and what it does.
pub fn label(what: &str) -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let user = user.unwrap_or_else(|_| rustix::process::getuid().as_raw().to_string());
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut label = format!("{user}@{machine} pid {}: {what}", std::process::id());
    let end = label.floor_char_boundary(LABEL_BYTES_MAX);
    label.truncate(end);
    label
}

/// Longer ones are cut: nobody reads more, and engines take 1024.
const LABEL_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn global(on: &str, user: Option<&str>, password: Option<&str>, token: Option<&str>) -> Global {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let (user, password, token) = (text(user), text(password), text(token));
        Global { on: on.to_owned(), user, password, token, json: false }
    }

    #[test]
    fn credentials_go_into_the_url_escaped() {
        let given = global("http://h:1/x", Some("a@b"), Some("c:d"), None);
        assert_eq!(url(&given).expect("it is right"), "http://a%40b:c%3Ad@h:1/x");
        let given = global("https://h", None, None, Some("t"));
        assert_eq!(url(&given).expect("it is right"), "https://:t@h");
        assert_eq!(url(&global("./d", Some("a"), None, None)).expect("it is right"), "./d");
        assert!(url(&global("http://x@h", Some("a"), None, None)).is_err());
    }

    #[test]
    fn urls_are_shown_without_users() {
        assert_eq!(without_user("http://a:b@h:1/x"), "http://h:1/x");
        assert_eq!(without_user("./d@x"), "./d@x");
    }
}
