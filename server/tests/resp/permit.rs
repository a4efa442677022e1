//! Who may do what: strangers who speak another protocol, and users who may do a part.

use crate::Door;
use crate::raw::Said;
use crate::talk::number_of;

#[test]
fn what_a_web_page_could_send_is_not_carried_out() {
    let door = Door::open();
    let page = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nSET of_the_page 1\r\n";
    // Another method is one that Redis does not know either; the next line tells what it is.
    let other = b"PUT / HTTP/1.1\r\nhOST: 127.0.0.1\r\n\r\nSET of_the_page 1\r\n";
    let array = b"*1\r\n$4\r\npost\r\n*3\r\n$3\r\nSET\r\n$11\r\nof_the_page\r\n$1\r\n1\r\n";
    for (bytes, answered) in [(&page[..], false), (other, true), (array, false)] {
        let mut one = door.raw();
        one.send(bytes);
        assert_eq!(one.end() > 0, answered, "{}", String::from_utf8_lossy(bytes));
    }
    let mut own = door.raw();
    assert_eq!(own.line("EXISTS of_the_page"), Said::Int(0));
    // What was asked before is answered; a value may say what it wants.
    own.send(b"SET POST Host:\r\nGET POST\r\nPOST\r\nDEL POST\r\n");
    assert_eq!([own.said(), own.said()], [Said::ok(), Said::text("Host:")]);
    assert_eq!(own.end(), 0);
    assert_eq!(door.raw().line("EXISTS POST"), Said::Int(1));
    assert_eq!(number_of(&door.raw().line("INFO clients"), "connected_clients"), 1);
}
