//! `#[body]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::Error;

pub(crate) fn expand(arguments: &TokenStream, item: &TokenStream) -> TokenStream {
    if !arguments.is_empty() {
        return Error::new_spanned(arguments, "`#[body]` takes no arguments").to_compile_error();
    }
    quote! {
        #[derive(
            ::astrid_sdk::serde::Serialize,
            ::astrid_sdk::serde::Deserialize,
            ::astrid_sdk::schemars::JsonSchema,
        )]
        #[serde(crate = "::astrid_sdk::serde")]
        #[schemars(crate = "::astrid_sdk::schemars")]
        #item
    }
}
