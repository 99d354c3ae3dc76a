//! `#[capsule]`: the choice of handler, the calls, the description, and the component's exports.

use proc_macro2::{Literal, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Ident, ImplItem, ItemImpl, LitStr, Result, Token, Type, parenthesized};

use crate::guard;
use crate::handler::{Handler, On, Returns, Takes, Topic};

/// Where firings of timers arrive.
const TIMER_FIRED: &str = "port.v1.timer.fired";

/// Domains that the kernel speaks on and to one actor alone: no part of a capsule's interface.
const PRIVATE_DOMAINS: [&str; 2] = ["port.", "lifecycle."];

/// The arguments of `#[capsule]`: what it publishes.
pub(crate) struct Says(Vec<(Topic, Type)>);

impl Parse for Says {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut says = Vec::new();
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            if name != "says" {
                return Err(Error::new(name.span(), "expected `says(\"topic\" = Type, ...)`"));
            }
            let list;
            parenthesized!(list in input);
            while !list.is_empty() {
                let topic = list.parse()?;
                list.parse::<Token![=]>()?;
                says.push((topic, list.parse()?));
                if !list.is_empty() {
                    list.parse::<Token![,]>()?;
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(Self(says))
    }
}

/// A way from a message to a call.
struct Route<'a> {
    topic: &'a Topic,
    /// Which of the calls.
    call: u16,
}

/// Everything that the handlers of an impl block say.
#[derive(Default)]
struct Table<'a> {
    on: Vec<Route<'a>>,
    answers: Vec<Route<'a>>,
    tags: Vec<(&'a LitStr, u16)>,
    other_tags: Option<u16>,
    /// The bodies of the calls, by number.
    calls: Vec<TokenStream>,
    described: Vec<TokenStream>,
}

pub(crate) fn expand(says: Says, mut block: ItemImpl) -> Result<TokenStream> {
    if let Some((_, path, _)) = &block.trait_ {
        return Err(Error::new(
            path.span(),
            "`#[capsule]` goes on the impl block of the type itself",
        ));
    }
    if !block.generics.params.is_empty() {
        return Err(Error::new(block.generics.span(), "a capsule has no type parameters"));
    }
    let mut handlers = Vec::new();
    let mut guard = None;
    for item in &mut block.items {
        if let ImplItem::Fn(method) = item {
            if guard::take(method)? && guard.replace(method.sig.ident.clone()).is_some() {
                return Err(Error::new(method.sig.ident.span(), "there is a guard already"));
            }
            handlers.extend(Handler::take(method)?);
        }
    }
    if handlers.is_empty() && guard.is_none() {
        return Err(Error::new(
            block.self_ty.span(),
            "a capsule without handlers: put `#[on(\"topic\")]` on a method",
        ));
    }
    let mut table = Table::default();
    for handler in &handlers {
        for takes in &handler.takes {
            table.add(handler, takes)?;
        }
    }
    let implementation = table.implementation(&block.self_ty, &says)?;
    let exports = exports(&block.self_ty);
    let guard = guard.map(|name| guard::implementation(&block.self_ty, &name));
    Ok(quote! { #block #implementation #exports #guard })
}

impl<'a> Table<'a> {
    fn add(&mut self, handler: &'a Handler, takes: &'a Takes) -> Result<()> {
        let call = u16::try_from(self.calls.len())
            .map_err(|_| Error::new(handler.name.span(), "more handlers than 65,536"))?;
        match takes {
            Takes::On(on) => {
                self.on.extend(on.topics.iter().map(|topic| Route { topic, call }));
                self.describe(handler, on);
                self.calls.push(call_on(handler));
            }
            Takes::Answer(topics) => {
                self.answers.extend(topics.iter().map(|topic| Route { topic, call }));
                self.calls
                    .push(call_told(handler, quote!(::astrid_sdk::dispatch::answer(ctx, body)))?);
            }
            Takes::Timer(tags) => {
                self.add_tags(handler, tags, call)?;
                let tag = quote!(::std::string::String::from_utf8_lossy(&body.bytes).into_owned());
                self.calls.push(call_told(handler, tag)?);
            }
        }
        Ok(())
    }

    fn add_tags(&mut self, handler: &Handler, tags: &'a [LitStr], call: u16) -> Result<()> {
        if tags.is_empty() && self.other_tags.replace(call).is_some() {
            return Err(Error::new(
                handler.name.span(),
                "there is a handler for all other timers already",
            ));
        }
        for tag in tags {
            if self.tags.iter().any(|(other, _)| other.value() == tag.value()) {
                return Err(Error::new(tag.span(), "there is a handler for this tag already"));
            }
            self.tags.push((tag, call));
        }
        Ok(())
    }

    fn describe(&mut self, handler: &Handler, on: &On) {
        let form = |body: &Type| quote_spanned!(body.span()=> <#body as ::astrid_sdk::describe::DescribeBody>::FORM);
        let any = || quote!(::astrid_sdk::describe::Form::Any);
        let request = on.request.as_ref().or(handler.body.as_ref()).map_or_else(any, form);
        let returned = match &handler.returns {
            Returns::Value(value) | Returns::Fallible(value) => Some(&**value),
            Returns::Unit | Returns::FallibleUnit => None,
        };
        let reply = on.reply.as_ref().or(returned).map_or_else(any, form);
        let (summary, accepts) = (&handler.summary, &on.accepts);
        for Topic { text, .. } in &on.topics {
            if PRIVATE_DOMAINS.iter().any(|domain| text.value().starts_with(domain)) {
                continue;
            }
            self.described
                .push(quote!(describe.hears(#text, #summary, #request, #reply, &[#(#accepts),*]);));
        }
    }

    fn implementation(&self, capsule: &Type, says: &Says) -> Result<TokenStream> {
        let timers = self.timers()?;
        let on = choose(&self.on, timers)?;
        let answers = choose(&self.answers, None)?;
        let numbers = 0..u16::try_from(self.calls.len()).unwrap_or(u16::MAX);
        let (calls, described) = (&self.calls, &self.described);
        let said = says.0.iter().map(|(Topic { text, .. }, body)| quote!(describe.says(#text, <#body as ::astrid_sdk::describe::DescribeBody>::FORM);));
        Ok(quote! {
            #[automatically_derived]
            impl ::astrid_sdk::Capsule for #capsule {
                fn handle(
                    &mut self,
                    ctx: &mut ::astrid_sdk::Context,
                    body: ::astrid_sdk::Body,
                ) -> ::std::result::Result<(), ::astrid_sdk::Rollback> {
                    let call: u16 = match ctx.kind() {
                        ::astrid_sdk::Kind::Event | ::astrid_sdk::Kind::Ask => #on,
                        ::astrid_sdk::Kind::Answer | ::astrid_sdk::Kind::Refusal | ::astrid_sdk::Kind::Timeout => #answers,
                    };
                    let handled: ::astrid_sdk::dispatch::Handled = match call {
                        #(#numbers => #calls,)*
                        _ => return ::astrid_sdk::dispatch::unhandled(ctx),
                    };
                    ::astrid_sdk::dispatch::settle(ctx, handled)
                }

                fn describe() -> ::astrid_sdk::Description {
                    let mut describe = ::astrid_sdk::describe::Describe::default();
                    #(#described)*
                    #(#said)*
                    describe.finish()
                }
            }
        })
    }

    /// The arm for firings of timers.
    fn timers(&self) -> Result<Option<TokenStream>> {
        if self.tags.is_empty() && self.other_tags.is_none() {
            return Ok(None);
        }
        if let Some(route) = self.on.iter().find(|route| route.topic.text.value() == TIMER_FIRED) {
            return Err(Error::new(
                route.topic.text.span(),
                "`#[timer]` handlers take these already",
            ));
        }
        let tags = self.tags.iter().map(|(tag, call)| {
            let bytes = Literal::byte_string(tag.value().as_bytes());
            quote!(#bytes => #call,)
        });
        let other = self.other_tags.unwrap_or(u16::MAX);
        Ok(Some(
            quote!(#TIMER_FIRED => match body.bytes.as_slice() { #(#tags)* _ => #other },),
        ))
    }
}

/// The number of the call for a topic: literals by one match, then patterns, most specific first.
fn choose(routes: &[Route<'_>], timers: Option<TokenStream>) -> Result<TokenStream> {
    for (index, route) in routes.iter().enumerate() {
        if routes[..index]
            .iter()
            .any(|other| other.topic.pattern == route.topic.pattern)
        {
            return Err(Error::new(
                route.topic.text.span(),
                "there is a handler for this topic already",
            ));
        }
    }
    let (literals, mut patterns): (Vec<_>, Vec<_>) = routes.iter().partition(|route| route.topic.pattern.is_literal());
    patterns.sort_by(|one, other| one.topic.specificity(other.topic));
    let literals = literals.iter().map(|Route { topic, call }| {
        let text = &topic.text;
        quote!(#text => #call,)
    });
    let patterns = patterns.iter().map(|Route { topic, call }| {
        let text = &topic.text;
        quote!(topic if ::astrid_sdk::dispatch::matches(#text, topic) => #call,)
    });
    Ok(quote! {
        match ctx.topic() {
            #timers
            #(#literals)*
            #(#patterns)*
            _ => u16::MAX,
        }
    })
}

/// Calls a handler of topics: its body is read first, its result is written after.
fn call_on(handler: &Handler) -> TokenStream {
    let call = call(handler);
    let called = match &handler.returns {
        Returns::Unit => quote!({ #call; ::std::result::Result::Ok(::std::option::Option::None) }),
        Returns::Value(value) => {
            quote_spanned!(value.span()=> { let value = #call; ::astrid_sdk::dispatch::encode(value) })
        }
        Returns::FallibleUnit => fallible(&call, quote!(::std::result::Result::Ok(::std::option::Option::None))),
        Returns::Fallible(value) => fallible(
            &call,
            quote_spanned!(value.span()=> ::astrid_sdk::dispatch::encode(value)),
        ),
    };
    let Some(body) = &handler.body else {
        return called;
    };
    let decode = quote_spanned!(body.span()=> ::astrid_sdk::dispatch::decode::<#body>(body));
    quote! {
        match #decode {
            ::std::result::Result::Ok(body) => #called,
            ::std::result::Result::Err(failure) => ::std::result::Result::Err(failure),
        }
    }
}

/// Calls a handler of what is told to this actor alone, where nobody waits for a value.
fn call_told(handler: &Handler, argument: TokenStream) -> Result<TokenStream> {
    let call = call(handler);
    let called = match &handler.returns {
        Returns::Unit => quote!(#call; ::std::result::Result::Ok(::std::option::Option::None)),
        Returns::FallibleUnit => fallible(&call, quote!(::std::result::Result::Ok(::std::option::Option::None))),
        Returns::Value(value) | Returns::Fallible(value) => {
            return Err(Error::new(
                value.span(),
                "nobody waits for what this handler returns: `()` or `Result<()>`",
            ));
        }
    };
    Ok(match &handler.body {
        Some(body) => quote!({ let body: #body = #argument; #called }),
        None => quote!({ #called }),
    })
}

fn call(handler: &Handler) -> TokenStream {
    let name = &handler.name;
    let context = handler.context.then(|| quote!(&mut *ctx,));
    let body = handler.body.is_some().then(|| quote!(body,));
    if handler.body_first {
        quote!(self.#name(#body #context))
    } else {
        quote!(self.#name(#context #body))
    }
}

fn fallible(call: &TokenStream, ok: TokenStream) -> TokenStream {
    quote! {
        match #call {
            ::std::result::Result::Ok(value) => { let _ = &value; #ok }
            ::std::result::Result::Err(error) => {
                ::std::result::Result::Err(::astrid_sdk::Failure::from(error))
            }
        }
    }
}

fn exports(capsule: &Type) -> TokenStream {
    quote! {
        // Natively only tests use a capsule; that is use enough.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> #capsule = <#capsule as ::std::default::Default>::default;

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static CAPSULE: ::astrid_sdk::guest::Cell<#capsule> = const { ::astrid_sdk::guest::Cell::new(::std::option::Option::None) };
            }

            struct Component;

            impl ::astrid_sdk::bindings::Guest for Component {
                fn handle(
                    message: ::astrid_sdk::bindings::Message,
                ) -> ::std::result::Result<(), ::astrid_sdk::bindings::Rollback> {
                    ::astrid_sdk::guest::handle(&CAPSULE, message)
                }

                fn describe() -> ::std::string::String {
                    ::astrid_sdk::guest::describe::<#capsule>()
                }
            }

            ::astrid_sdk::bindings::export!(Component with_types_in ::astrid_sdk::bindings);
        };
    }
}
