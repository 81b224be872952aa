//! `trunkline call`: a call through a running gateway's proxy door, as the application would make it.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, header};
use serde_json::{Map, Value};

use super::output::Output;
use super::remote::{self, Answer, Remote};
use super::{Common, Ended};

/// What to call.
///
/// `trunkline call stripe /v1/balance` streams a request to the service; `trunkline call slack post_message
/// channel=#general text=hello` runs an endpoint by name.
#[derive(Debug, Args)]
pub struct Call {
    /// The integration, by its id
    integration: String,
    /// A path that begins with a slash, or the name of an endpoint
    what: String,
    /// Inputs of the endpoint: `name=text`, or `name:=JSON`
    inputs: Vec<String>,
    /// The connection
    #[arg(long, default_value = "default", value_name = "ID")]
    connection: String,
    /// The method of a path [default: POST with --data, else GET]
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<Method>,
    /// The body of a path
    #[arg(short, long, value_name = "TEXT")]
    data: Option<String>,
    /// The caller's key; better given in the environment
    #[arg(long, env = "TRUNKLINE_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<String>,
    /// The proxy door: http://HOST:PORT or unix:PATH [default: what the settings say]
    #[arg(long, env = "TRUNKLINE_PROXY", value_name = "URL")]
    proxy: Option<String>,
}

/// Runs the command.
pub fn run(common: &Common, call: &Call, output: &mut Output) -> anyhow::Result<Ended> {
    let remote = Remote::proxy(common, call.proxy.as_deref(), call.key.clone())?;
    let (request, body) = call.request()?;
    let answer = remote::block_on(remote.send(request, body))??;
    show(&answer, output)
}

impl Call {
    fn request(&self) -> anyhow::Result<(http::request::Builder, Bytes)> {
        let integration = &self.integration;
        let request = if self.what.starts_with('/') {
            if let Some(input) = self.inputs.first() {
                bail!("`{input}`: a path takes no inputs; give its body with --data");
            }
            let method = self.method.clone();
            let method = method.unwrap_or(if self.data.is_some() { Method::POST } else { Method::GET });
            Request::builder().method(method).uri(format!("/{integration}{}", self.what))
        } else {
            Request::post(format!("/{integration}/-/{}", self.what)).header(header::CONTENT_TYPE, "application/json")
        };
        let body = match &self.data {
            Some(data) => Bytes::from(data.clone()),
            None if self.what.starts_with('/') => Bytes::new(),
            None => Bytes::from(inputs(&self.inputs)?.to_string()),
        };
        Ok((request.header("trunkline-connection", &self.connection), body))
    }
}

fn inputs(words: &[String]) -> anyhow::Result<Value> {
    let mut map = Map::new();
    for word in words {
        let (name, value) = match (word.split_once(":="), word.split_once('=')) {
            (Some((name, json)), _) if !name.contains('=') => {
                (name, serde_json::from_str(json).with_context(|| format!("`{json}` is not JSON"))?)
            }
            (_, Some((name, text))) => (name, Value::from(text)),
            _ => bail!("`{word}` is not an input: expected name=text or name:=JSON"),
        };
        map.insert(name.to_owned(), value);
    }
    Ok(Value::Object(map))
}

fn show(answer: &Answer, output: &mut Output) -> anyhow::Result<Ended> {
    match serde_json::from_slice::<Value>(&answer.body) {
        Ok(value) => output.value(&value)?,
        Err(_) => output.raw(&answer.body)?,
    }
    if answer.status.is_success() {
        return Ok(Ended::Done);
    }
    let ours = answer.headers.contains_key(crate::respond::ERROR_HEADER);
    output.note(format_args!("{} by {}", answer.status, if ours { "the gateway" } else { "the service" }));
    Ok(Ended::No)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_texts_or_json() {
        let read = |words: &[&str]| inputs(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let expected = serde_json::json!({ "text": "a:=b=c", "count": 3, "empty": "" });
        assert_eq!(read(&["text=a:=b=c", "count:=3", "empty="]).expect("inputs"), expected);
        assert!(read(&["x"]).is_err() && read(&["x:=y"]).is_err());
    }
}
