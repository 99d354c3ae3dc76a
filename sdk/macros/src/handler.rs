//! Handlers: what the attributes of a method and its signature say.

use std::cmp::Ordering;
use std::str::FromStr;

use astrid_wire::Pattern;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, GenericArgument, Ident, ImplItemFn, LitStr, Meta, PathArguments, Result, ReturnType,
    Token, Type, parenthesized,
};

/// A topic or pattern that was checked, with its place in the source.
pub(crate) struct Topic {
    pub(crate) text: LitStr,
    pub(crate) pattern: Pattern,
}

impl Parse for Topic {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let text: LitStr = input.parse()?;
        let value = text.value();
        let pattern = Pattern::from_str(&value)
            .map_err(|error| Error::new(text.span(), format!("`{value}` is not a topic or pattern: {error}")))?;
        Ok(Self { text, pattern })
    }
}

impl Topic {
    /// Most specific first: from the left, a literal before `*` before `>`. Two that are equal here take no topic in common, unless
    /// they are the same.
    pub(crate) fn specificity(&self, other: &Self) -> Ordering {
        let rank = |topic: &Self| -> Vec<u8> {
            let text = topic.text.value();
            text.split('.')
                .map(|segment| match segment {
                    ">" => 2,
                    "*" => 1,
                    _ => 0,
                })
                .collect()
        };
        rank(self).cmp(&rank(other))
    }
}

/// What `#[on(...)]` says.
pub(crate) struct On {
    pub(crate) topics: Vec<Topic>,
    pub(crate) accepts: Vec<LitStr>,
    pub(crate) request: Option<Type>,
    pub(crate) reply: Option<Type>,
}

impl Parse for On {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut on = Self {
            topics: Vec::new(),
            accepts: Vec::new(),
            request: None,
            reply: None,
        };
        while !input.is_empty() {
            if input.peek(LitStr) {
                on.topics.push(input.parse()?);
            } else {
                on.option(input)?;
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        if on.topics.is_empty() {
            return Err(input.error("which topic? `#[on(\"hello.v1.greet\")]`"));
        }
        Ok(on)
    }
}

impl On {
    fn option(&mut self, input: ParseStream<'_>) -> Result<()> {
        let name: Ident = input.parse()?;
        if name == "accepts" {
            let list;
            parenthesized!(list in input);
            self.accepts
                .extend(Punctuated::<LitStr, Token![,]>::parse_terminated(&list)?);
            return Ok(());
        }
        let slot = match name.to_string().as_str() {
            "request" => &mut self.request,
            "reply" => &mut self.reply,
            _ => {
                return Err(Error::new(
                    name.span(),
                    "expected a topic, `accepts(..)`, `request = Type` or `reply = Type`",
                ));
            }
        };
        input.parse::<Token![=]>()?;
        *slot = Some(input.parse()?);
        Ok(())
    }
}

/// Which messages a handler takes.
pub(crate) enum Takes {
    On(Box<On>),
    Answer(Vec<Topic>),
    /// No tag means all others.
    Timer(Vec<LitStr>),
}

/// What a handler returns.
pub(crate) enum Returns {
    /// Nothing now.
    Unit,
    /// A value.
    Value(Box<Type>),
    /// Nothing now, or an error.
    FallibleUnit,
    /// A value, or an error.
    Fallible(Box<Type>),
}

/// A method that handles messages.
pub(crate) struct Handler {
    pub(crate) name: Ident,
    pub(crate) takes: Vec<Takes>,
    /// Whether it wants the context.
    pub(crate) context: bool,
    /// The type of the body it wants.
    pub(crate) body: Option<Type>,
    /// Whether the body comes before the context.
    pub(crate) body_first: bool,
    pub(crate) returns: Returns,
    /// The first paragraph of its documentation.
    pub(crate) summary: String,
}

impl Handler {
    /// Reads a method and removes the attributes that are not the compiler's. `None` when it is not a handler.
    pub(crate) fn take(method: &mut ImplItemFn) -> Result<Option<Self>> {
        let mut takes = Vec::new();
        let mut kept = Vec::new();
        for attribute in std::mem::take(&mut method.attrs) {
            match take(&attribute)? {
                Some(taken) => takes.push(taken),
                None => kept.push(attribute),
            }
        }
        method.attrs = kept;
        if takes.is_empty() {
            return Ok(None);
        }
        let signature = &method.sig;
        if let Some(keyword) = &signature.asyncness {
            return Err(Error::new(
                keyword.span(),
                "a handler is not async: ask, and handle the answer with `#[answer]`",
            ));
        }
        if !signature.generics.params.is_empty() {
            return Err(Error::new(
                signature.generics.span(),
                "a handler is called by the kernel, which knows no type parameters",
            ));
        }
        let mut handler = Self {
            name: signature.ident.clone(),
            takes,
            context: false,
            body: None,
            body_first: false,
            returns: returns(&signature.output),
            summary: summary(&method.attrs),
        };
        let mut inputs = signature.inputs.iter();
        match inputs.next() {
            Some(FnArg::Receiver(receiver)) if receiver.reference.is_some() => {}
            other => {
                let span = other.map_or_else(|| signature.ident.span(), Spanned::span);
                return Err(Error::new(span, "a handler begins with `&mut self` or `&self`"));
            }
        }
        for input in inputs {
            handler.parameter(input)?;
        }
        Ok(Some(handler))
    }

    fn parameter(&mut self, input: &FnArg) -> Result<()> {
        let FnArg::Typed(parameter) = input else {
            return Err(Error::new(input.span(), "only the first parameter is `self`"));
        };
        let error = "a handler takes `&mut Context` and one body, by value";
        match &*parameter.ty {
            Type::Reference(_) if self.context => Err(Error::new(parameter.span(), error)),
            Type::Reference(_) => {
                self.context = true;
                self.body_first = self.body.is_some();
                Ok(())
            }
            _ if self.body.is_some() => Err(Error::new(parameter.span(), error)),
            body => {
                self.body = Some(body.clone());
                Ok(())
            }
        }
    }
}

fn take(attribute: &Attribute) -> Result<Option<Takes>> {
    let path = attribute.path();
    if path.is_ident("on") {
        return Ok(Some(Takes::On(Box::new(attribute.parse_args()?))));
    }
    if path.is_ident("answer") {
        let topics = attribute.parse_args_with(Punctuated::<Topic, Token![,]>::parse_terminated)?;
        if topics.is_empty() {
            return Err(Error::new(
                attribute.span(),
                "answers to which topic? `#[answer(\"hello.v1.greet\")]`",
            ));
        }
        return Ok(Some(Takes::Answer(topics.into_iter().collect())));
    }
    if path.is_ident("timer") {
        if matches!(attribute.meta, Meta::Path(_)) {
            return Ok(Some(Takes::Timer(Vec::new())));
        }
        let tags = attribute.parse_args_with(Punctuated::<LitStr, Token![,]>::parse_terminated)?;
        return Ok(Some(Takes::Timer(tags.into_iter().collect())));
    }
    Ok(None)
}

fn returns(output: &ReturnType) -> Returns {
    let ReturnType::Type(_, returned) = output else {
        return Returns::Unit;
    };
    if is_unit(returned) {
        return Returns::Unit;
    }
    let Some(value) = result_of(returned) else {
        return Returns::Value(returned.clone());
    };
    if is_unit(value) {
        Returns::FallibleUnit
    } else {
        Returns::Fallible(Box::new(value.clone()))
    }
}

fn is_unit(returned: &Type) -> bool {
    matches!(returned, Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// The `T` of a type that is written as `Result<T, ..>`.
fn result_of(returned: &Type) -> Option<&Type> {
    let Type::Path(path) = returned else {
        return None;
    };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    match arguments.args.first()? {
        GenericArgument::Type(value) => Some(value),
        _ => None,
    }
}

fn summary(attributes: &[Attribute]) -> String {
    let lines = attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
        .filter_map(|attribute| {
            let Meta::NameValue(line) = &attribute.meta else {
                return None;
            };
            match &line.value {
                syn::Expr::Lit(syn::ExprLit {
                    lit: syn::Lit::Str(text),
                    ..
                }) => Some(text.value().trim().to_owned()),
                _ => None,
            }
        });
    lines
        .skip_while(String::is_empty)
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
