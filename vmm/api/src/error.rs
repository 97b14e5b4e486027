//! Why a request was refused.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of each answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// One sentence with the cause and what to do.
    pub error: String,
    /// What would be granted instead, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_fit: Option<String>,
}
