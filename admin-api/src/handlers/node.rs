//! `/api/v1/damage` and the interface's own description.

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};

use crate::error::AdminError;
use crate::query::NoQuery;
use crate::routes::OPENAPI;
use crate::state::Admin;
use crate::view::{DamageView, ListView};

/// Stored bytes that cannot be read.
pub async fn damage(
    admin: web::Data<Admin>,
    _query: web::Query<NoQuery>,
) -> Result<web::Json<ListView<DamageView>>, AdminError> {
    Ok(web::Json(ListView::of(admin.broker()?.damage())))
}

/// The OpenAPI document.
pub async fn openapi() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header(ContentType::json())
        .body(OPENAPI)
}
