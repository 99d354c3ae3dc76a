//! What each element of HTML is to plain text.

/// What an element is to plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// Nothing: its content stands in the line.
    Inline,
    /// Its content is left out.
    Skipped,
    Title,
    /// Starts and ends a line.
    Block,
    Paragraph,
    Heading(u8),
    Break,
    Rule,
    /// Quoted within a line.
    Quotation,
    Preformatted,
    Link,
    Image,
    Quote,
    List,
    NumberedList,
    Item,
    Definitions,
    Term,
    Definition,
    Table,
    Row,
    Cell,
    HeaderCell,
}

impl Element {
    /// Whether its end tag cannot be left out, so that hiding it hides no more than it.
    pub(super) fn has_end(self) -> bool {
        !matches!(
            self,
            Self::Paragraph
                | Self::Break
                | Self::Rule
                | Self::Image
                | Self::Item
                | Self::Term
                | Self::Definition
                | Self::Row
                | Self::Cell
                | Self::HeaderCell
        )
    }
}

/// What the element of this name (in lower case) is.
pub(super) fn element(name: &[u8]) -> Element {
    match name {
        b"script" | b"style" | b"template" | b"noframes" | b"noembed" | b"iframe" | b"svg" | b"canvas" | b"audio"
        | b"video" | b"select" | b"datalist" | b"textarea" | b"annotation" | b"annotation-xml" => Element::Skipped,
        b"title" => Element::Title,
        b"address" | b"article" | b"aside" | b"body" | b"center" | b"details" | b"dialog" | b"dir" | b"div"
        | b"fieldset" | b"figcaption" | b"footer" | b"form" | b"header" | b"hgroup" | b"html" | b"legend" | b"main"
        | b"nav" | b"optgroup" | b"search" | b"section" | b"summary" | b"caption" => Element::Block,
        b"p" | b"figure" => Element::Paragraph,
        b"h1" => Element::Heading(1),
        b"h2" => Element::Heading(2),
        b"h3" => Element::Heading(3),
        b"h4" => Element::Heading(4),
        b"h5" => Element::Heading(5),
        b"h6" => Element::Heading(6),
        b"br" => Element::Break,
        b"hr" => Element::Rule,
        b"q" => Element::Quotation,
        b"pre" | b"listing" | b"xmp" | b"plaintext" => Element::Preformatted,
        b"a" => Element::Link,
        b"img" => Element::Image,
        b"blockquote" => Element::Quote,
        b"ul" | b"menu" => Element::List,
        b"ol" => Element::NumberedList,
        b"li" => Element::Item,
        b"dl" => Element::Definitions,
        b"dt" => Element::Term,
        b"dd" => Element::Definition,
        b"table" => Element::Table,
        b"tr" => Element::Row,
        b"td" => Element::Cell,
        b"th" => Element::HeaderCell,
        _ => Element::Inline,
    }
}
