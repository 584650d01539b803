//! The commands as the description of REST has them: each with what it takes. `crate::command` is what reads them.
#![expect(dead_code, reason = "what stands here is read by utoipa alone")]

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::ResponseBody;
use crate::http::failure::ErrorBody;

/// What every command takes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PlainRequest {
    /// Comes back with the answer: a number, or a text of at most 100 bytes.
    transaction: Option<i64>,
}

/// Which source is meant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SourceRequest {
    transaction: Option<i64>,
    /// A source's id; left out for all.
    source: Option<String>,
}

/// How the prompts change: `prompts`, or `merge` and `remove`, or `reset`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PromptsRequest {
    transaction: Option<i64>,
    /// These and no others, as `[[prompt]]` has them.
    #[schema(value_type = Option<Vec<Object>>)]
    prompts: Option<Vec<Value>>,
    /// These in the place of those with their ids, or behind the others.
    #[schema(value_type = Option<Vec<Object>>)]
    merge: Option<Vec<Value>>,
    /// Ids of prompts.
    remove: Option<Vec<String>>,
    /// Back to those of the configuration.
    reset: Option<bool>,
}

/// A sentence that is asked of the past.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct AskRequest {
    transaction: Option<i64>,
    /// 1 to 300 letters.
    #[schema(min_length = 1, max_length = 300)]
    text: String,
    /// A source's id; may be left out where there is one.
    source: Option<String>,
    /// Milliseconds since 1970; left out for as far back as there is anything.
    from: Option<i64>,
    /// Milliseconds since 1970; left out for now.
    to: Option<i64>,
    /// Whether every window's score is wanted, and not only the best.
    curve: Option<bool>,
}

/// Who wants quiet, and for how long.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SnoozeRequest {
    transaction: Option<i64>,
    /// From now on; 0 ends it.
    #[schema(minimum = 0, maximum = 1440)]
    minutes: u32,
    /// A source's id; left out for all.
    source: Option<String>,
    /// A prompt's id; left out for all.
    prompt: Option<String>,
}

/// Describes a command: its function, path, and body.
macro_rules! describe {
    ($name:ident, $path:literal, $body:ty, $text:literal) => {
        #[doc = $text]
        #[utoipa::path(post, path = $path, tag = "commands", request_body = $body, responses(
            (status = 200, body = ResponseBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
            (status = 403, body = ErrorBody), (status = 408, body = ErrorBody), (status = 413, body = ErrorBody),
            (status = 415, body = ErrorBody), (status = 503, body = ErrorBody), (status = 504, body = ErrorBody)))]
        pub(in crate::http) fn $name() {}
    };
}

describe!(prompts_get, "/api/v1/request/prompts/get", PlainRequest, "Answers with what is listened for.");
describe!(prompts_set, "/api/v1/request/prompts/set", PromptsRequest, "Has clapd listen for something else.");
describe!(pause, "/api/v1/request/pause", SourceRequest, "Drops the sound of a source, or of all.");
describe!(resume, "/api/v1/request/resume", SourceRequest, "Listens again.");
describe!(reload, "/api/v1/request/reload", PlainRequest, "Reads the configuration again.");
describe!(describe_info, "/api/v1/request/info", PlainRequest, "Answers with what runs here.");
describe!(
    describe_ask,
    "/api/v1/request/ask",
    AskRequest,
    "Answers with what a sentence would have scored in the past."
);
describe!(snooze, "/api/v1/request/snooze", SnoozeRequest, "Begins no events for some minutes.");
