use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Machine, served};

#[tokio::test]
async fn pages_are_served_closed_and_load_nothing_of_others() {
    let served = served("", Machine::Works).await;
    for (path, expected) in [
        ("/", "<h1>Overview</h1>"),
        ("/services", "href=\"/services/a\""),
        ("/services?q=A&sort=port&order=desc", "href=\"/services/a\""),
        ("/services/a", "<h1>Service a</h1>"),
        ("/doctor", "Nothing was found."),
    ] {
        let page = served.get(path, "").await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        assert!(page.body.contains(expected), "{path}: {}", page.body);
        for header in [
            "content-type: text/html; charset=utf-8",
            "content-security-policy: default-src 'none'; style-src 'self'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(page.head.contains(header), "{header}: {}", page.head);
        }
        let length = format!("content-length: {}", page.body.len());
        assert!(page.head.contains(&length), "{}", page.head);
        let head = served.ask("HEAD", path, "").await;
        assert_eq!((head.status, &*head.body), (200, ""));
        for reference in ["href=\"", "src=\""] {
            for url in page
                .body
                .split(reference)
                .skip(1)
                .filter_map(|rest| rest.split('"').next())
            {
                assert!(url.starts_with('/') || url.starts_with('#'), "{url}");
                if url.starts_with("/assets/") {
                    let asset = served.get(url, "").await;
                    assert_eq!(asset.status, 200, "{url}");
                    assert!(
                        asset.head.contains("immutable") && !asset.body.is_empty(),
                        "{}",
                        asset.head
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_as_text() {
    let served = served("", Machine::Works).await;
    for (path, expected) in [
        ("/services/b", "There is no service named &quot;b&quot; here."),
        ("/services/:65000", "There is no service named &quot;:65000&quot; here."),
        ("/services/%3Cscript%3E%1B%00%FF", "&quot;&lt;script&gt;\\u{1b}\\u{0}"),
        ("/services/%2e%2e%2fetc", "No such service"),
        ("/deploys/7", "No such deploy"),
        ("/deploys/-1", "No such deploy"),
        ("/deploys/99999999999999999999999", "No such deploy"),
        ("/apps/abcdefghjkmn", "No such app"),
        ("/apps/%3Cb%3E", "No such app"),
    ] {
        let page = served.get(path, "").await;
        assert_eq!(page.status, 404, "{path}: {}", page.body);
        assert!(page.body.contains(expected), "{path}: {}", page.body);
        assert!(!page.body.contains("<script>") && page.head.contains("content-security-policy"));
    }
    let long = format!("/services/{}", "x".repeat(10_000));
    assert!(served.get(&long, "").await.body.len() < 4000);
}

#[tokio::test]
async fn the_machine_is_examined_once_for_all_who_ask() {
    let served = served("", Machine::Works).await;
    let begun = Instant::now();
    let answers = futures_util::future::join_all((0..50).map(|_| served.get("/doctor", ""))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    // A busy machine may need more than the five seconds for which findings are shown.
    let most = 1 + usize::try_from(begun.elapsed().as_secs() / 5).unwrap();
    assert!((1..=most).contains(&served.diagnosed.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn a_bad_query_is_told_and_asks_nobody() {
    let served = served("", Machine::Works).await;
    let long = format!("/services?q={}", "x".repeat(201));
    for (path, expected) in [
        ("/services?sort=colour", "sort cannot be &quot;colour&quot;"),
        ("/services?page=0", "pages are counted from 1"),
        ("/services?page=%00", "pages are counted from 1"),
        ("/services?%3Cscript%3E=1", "&lt;script&gt;"),
        (&*long, "the filter is too long"),
    ] {
        let page = served.get(path, "").await;
        assert_eq!(page.status, 400, "{path}: {}", page.body);
        assert!(page.body.contains(expected), "{path}: {}", page.body);
        assert!(page.head.contains("content-security-policy"), "{}", page.head);
    }
    assert_eq!(served.asked.load(Ordering::SeqCst), 0);
    let beyond = served.get("/services?sort=name&page=2", "").await;
    assert_eq!(beyond.status, 404);
    assert!(
        beyond.body.contains("there is no page 2") && beyond.body.contains("href=\"/services?sort=name\""),
        "{}",
        beyond.body
    );
}

#[tokio::test]
async fn a_page_without_an_answer_of_the_loop_says_so() {
    let served = served("", Machine::HasNoDaemon).await;
    for page in futures_util::future::join_all(
        ["/", "/services", "/services/a", "/deploys/1", "/doctor"].map(|path| served.get(path, "")),
    )
    .await
    {
        assert_eq!(page.status, 503, "{}", page.body);
        assert!(page.head.contains("retry-after: 5") && page.body.contains("<h1>Not available</h1>"));
    }
}

#[tokio::test]
async fn pages_have_no_more_than_their_places() {
    let served = served("", Machine::Works).await;
    let answers = futures_util::future::join_all((0..100).map(|_| served.get("/services", ""))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    // The token is asked for pages and their files, too.
    let closed = super::served("token_file = 'TOKEN'", Machine::Works).await;
    for path in [
        "/",
        "/services",
        "/services/a",
        "/doctor",
        "/assets/0/page.css",
        "/nothing",
    ] {
        assert_eq!(closed.get(path, "").await.status, 401, "{path}");
    }
}
