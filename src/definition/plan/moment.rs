//! Moments that answers tell.

use crate::template::Expr;

/// A moment that an answer tells, and how it is written.
#[derive(Debug, Clone)]
pub struct Moment {
    /// Where the value is.
    pub value: Expr,
    /// How it is written.
    pub unit: MomentUnit,
}

/// How a moment is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MomentUnit {
    /// Seconds since 1970.
    EpochSeconds,
    /// Milliseconds since 1970.
    EpochMillis,
    /// Microseconds since 1970.
    EpochMicros,
    /// RFC 3339.
    Rfc3339,
    /// An HTTP date (RFC 9110 §5.6.7).
    HttpDate,
    /// A JWT whose `exp` claim is the moment (RFC 7519).
    JwtExp,
    /// Seconds from now.
    AfterSeconds,
    /// Milliseconds from now.
    AfterMillis,
    /// Minutes from now.
    AfterMinutes,
}

impl MomentUnit {
    /// Whether the value is a time from now, which the other side's clock has no part in.
    pub const fn is_relative(self) -> bool {
        matches!(self, Self::AfterSeconds | Self::AfterMillis | Self::AfterMinutes)
    }
}
