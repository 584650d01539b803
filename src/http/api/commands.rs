//! The commands as the description of REST has them: each with what it takes. `crate::command` is what reads them.
#![expect(dead_code, reason = "what stands here is read by utoipa alone")]

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::ResponseBody;
use crate::http::failure::ErrorBody;

/// Whoever asked knows the answer by it.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::http) enum Transaction {
    Number(f64),
    Text(TransactionText),
}

/// At most 100 bytes.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(pattern = "^[ -~]{0,100}$")]
pub(in crate::http) struct TransactionText(String);

/// What every command takes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PlainRequest {
    /// Comes back with the answer.
    #[schema(required = false)]
    transaction: Transaction,
}

/// Which source is meant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct SourceRequest {
    #[schema(required = false)]
    transaction: Transaction,
    /// A source's id; left out for all.
    #[schema(required = false)]
    source: String,
}

/// How the prompts change: `prompts`, or `merge` and `remove`, or `reset`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct PromptsRequest {
    #[schema(required = false)]
    transaction: Transaction,
    /// These and no others, as `[[prompt]]` has them.
    #[schema(value_type = Vec<Object>, required = false)]
    prompts: Vec<Value>,
    /// These in the place of those with their ids, or behind the others.
    #[schema(value_type = Vec<Object>, required = false)]
    merge: Vec<Value>,
    /// Ids of prompts.
    #[schema(required = false)]
    remove: Vec<String>,
    /// Back to those of the configuration.
    #[schema(required = false)]
    reset: bool,
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
