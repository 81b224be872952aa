//! What people are told of a service.

use crate::definition::plan::about::About;
use crate::definition::raw::integration::{Integration, Pricing};

pub(super) fn compile(raw: &Integration) -> About {
    About {
        summary: raw.summary.clone(),
        category: raw.category.clone(),
        features: raw.features.clone(),
        docs: raw.docs.clone(),
        pricing: raw.pricing.map(|pricing| match pricing {
            Pricing::Free => "free",
            Pricing::Freemium => "freemium",
            Pricing::Paid => "paid",
        }),
        logo: raw.logo.as_deref().map(Into::into),
        featured: raw.featured,
    }
}
