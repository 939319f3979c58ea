//! portcullis-postgres
