//! `#[guard]`: a function that decides about others' messages, and the component's export for it.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Error, FnArg, Ident, ImplItemFn, Meta, Result, Type};

/// Whether a function is the guard. Removes the attribute, which is not the compiler's.
pub(crate) fn take(method: &mut ImplItemFn) -> Result<bool> {
    let Some(at) = method.attrs.iter().position(|a| a.path().is_ident("guard")) else {
        return Ok(false);
    };
    let attribute = method.attrs.remove(at);
    if !matches!(attribute.meta, Meta::Path(_)) {
        let error = "`#[guard]` by itself: what is guarded is in the manifest, `[capabilities] guard`";
        return Err(Error::new(attribute.span(), error));
    }
    let signature = &method.sig;
    let error = "a guard is `fn(message: &Guarded) -> Verdict`: without `self`, because nothing stays from one message to the next";
    let mut inputs = signature.inputs.iter();
    let fits = match (inputs.next(), inputs.next()) {
        (Some(FnArg::Typed(message)), None) => matches!(&*message.ty, Type::Reference(_)),
        _ => false,
    };
    if !fits || signature.asyncness.is_some() || !signature.generics.params.is_empty() {
        return Err(Error::new(signature.ident.span(), error));
    }
    Ok(true)
}

/// The trait, and the export.
pub(crate) fn implementation(capsule: &Type, name: &Ident) -> TokenStream {
    quote! {
        #[automatically_derived]
        impl ::astrid_sdk::Guard for #capsule {
            fn guard(message: &::astrid_sdk::Guarded) -> ::astrid_sdk::Verdict {
                ::astrid_sdk::guard::IntoVerdict::into_verdict(<#capsule>::#name(message))
            }
        }

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Component;

            impl ::astrid_sdk::bindings::guarding::Guest for Component {
                fn guard(message: ::astrid_sdk::bindings::guarding::Message) -> ::astrid_sdk::bindings::guarding::Verdict {
                    ::astrid_sdk::guest::guard::<#capsule>(message)
                }
            }

            ::astrid_sdk::bindings::guarding::export_guard!(Component with_types_in ::astrid_sdk::bindings::guarding);
        };
    }
}
