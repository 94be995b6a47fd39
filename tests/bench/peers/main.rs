// SPDX-License-Identifier: Apache-2.0
//! Counts tokens with other people's native libraries, for `make bench-tokens`:
//!
//!     peers PEER FAMILY TOKENIZER.JSON - FILE…
//!
//! A FILE holds documents, each as its length on a line, then its bytes. Loads, prints `{"ready":true}` (or `{"none":true}`
//! where the library lacks the family), then for each line of stdin, the number of a file, forks: the copy, which remembers
//! nothing, measures that once and prints a line of JSON. MB/s of the processor's time, one thread, the fastest call for a count that the library has. `new`: on the
//! second half of the documents, which nothing here has seen, when the first half has been counted; `seen`: on both
//! halves again, the median of some passes. A library that needs more than FIRST or SECOND seconds for a half is given only as many
//! of its documents as fit in that.
use std::{env, fs, hint::black_box, io::stdin, path::Path, process::exit};

const FIRST: f64 = 0.3;
const SECOND: f64 = 0.15;
const AGAIN: f64 = 0.12;

type Count = Box<dyn Fn(&str) -> usize>;

fn seconds() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

fn documents(path: &str) -> Vec<String> {
    let all = fs::read(path).expect("a file of documents");
    let (mut out, mut at) = (Vec::new(), 0);
    while at < all.len() {
        let end = at + all[at..].iter().position(|b| *b == b'\n').expect("a length");
        let n: usize = std::str::from_utf8(&all[at..end]).unwrap().parse().expect("a length");
        out.push(String::from_utf8_lossy(&all[end + 1..end + 1 + n]).into_owned());
        at = end + 1 + n;
    }
    out
}

fn counter(peer: &str, family: &str, json: &str) -> Option<Count> {
    match peer {
        "tiktoken-rs" => {
            let t = match family {
                "cl100k_base" => tiktoken_rs::cl100k_base_singleton(),
                "o200k_base" => tiktoken_rs::o200k_base_singleton(),
                "p50k_base" => tiktoken_rs::p50k_base_singleton(),
                "r50k_base" => tiktoken_rs::r50k_base_singleton(),
                _ => return None,
            };
            Some(Box::new(|s| t.count_ordinary(s)))
        }
        "bpe-openai" => {
            let t = match family {
                "cl100k_base" => bpe_openai::cl100k_base(),
                "o200k_base" => bpe_openai::o200k_base(),
                _ => return None,
            };
            Some(Box::new(|s| t.count(s)))
        }
        "tiktoken (crate)" => {
            let name = match family {
                "llama3_2" => "llama3",
                "qwen3" | "qwen2_5" => "qwen2",
                f => f,
            };
            let t = tiktoken::get_encoding(name)?;
            Some(Box::new(|s| t.count(s)))
        }
        "tokenizers" => {
            let t = tokenizers::Tokenizer::from_file(json).ok()?;
            Some(Box::new(move |s| t.encode_fast(s, false).unwrap().len()))
        }
        "kitoken" => {
            let t = kitoken::Kitoken::from_tokenizers_file(json).ok()?;
            Some(Box::new(move |s| t.encode(s, false).unwrap().len()))
        }
        "tokie" => {
            let t = tokie::Tokenizer::from_json(json).ok()?;
            Some(Box::new(move |s| t.count_tokens(s)))
        }
        "splintr" => {
            let t = splintr::core::from_json_path(json).ok()?;
            Some(Box::new(move |s| t.encode_raw(s).len()))
        }
        "fastokens" => {
            let t = fastokens::Tokenizer::from_file(Path::new(json)).ok()?;
            Some(Box::new(move |s| t.encode_ordinary(s).unwrap().len()))
        }
        _ => None,
    }
}

// Some of the documents, until the time is up: how many those were, their bytes and tokens, and the time they took.
fn pass(count: &Count, docs: &[String], limit: f64) -> (usize, usize, usize, f64) {
    let (from, mut n, mut bytes, mut tokens, mut took) = (seconds(), 0, 0, 0, 0.0);
    while n < docs.len() && took < limit {
        let end = (n + 10).min(docs.len());
        for d in &docs[n..end] {
            tokens += count(d);
            bytes += d.len();
        }
        n = end;
        took = seconds() - from;
    }
    (n, bytes, tokens, took)
}

fn measure(count: &Count, all: &[String]) {
    let half = all.len() / 2;
    let (first, _, before, _) = pass(count, &all[..half], FIRST);
    let (second, bytes, tokens, fresh) = pass(count, &all[half..], SECOND);
    let docs: Vec<&String> = all[..first].iter().chain(&all[half..half + second]).collect();
    let (mut took, begin) = (Vec::new(), seconds());
    while took.is_empty() || (took.len() < 9 && seconds() - begin < AGAIN) {
        let from = seconds();
        for d in &docs {
            black_box(count(d));
        }
        took.push(seconds() - from);
    }
    took.sort_by(f64::total_cmp);
    let every: usize = docs.iter().map(|d| d.len()).sum();
    let speed = |n: usize, t: f64| n as f64 / t / 1e6;
    println!(
        "{{\"docs\":[{first},{second}],\"tokens\":{},\"new\":{:.2},\"seen\":{:.2}}}",
        before + tokens,
        speed(bytes, fresh),
        speed(every, took[took.len() / 2])
    );
}

fn main() {
    let args: Vec<String> = env::args().collect();
    if args.len() < 6 {
        eprintln!("usage: peers PEER FAMILY TOKENIZER.JSON - FILE...");
        exit(2);
    }
    let Some(count) = counter(&args[1], &args[2], &args[3]) else {
        println!("{{\"none\":true}}");
        return;
    };
    println!("{{\"ready\":true}}");
    for line in stdin().lines() {
        let n: usize = line.unwrap().trim().parse().expect("the number of a file");
        // A copy of the process measures, so that this one never counts anything.
        let mut status = 0;
        unsafe {
            let child = libc::fork();
            if child == 0 {
                measure(&count, &documents(&args[5 + n]));
                libc::_exit(0);
            }
            if child < 0 || libc::waitpid(child, &mut status, 0) < 0 || status != 0 {
                eprintln!("the copy that measures ended with {status}");
                exit(1);
            }
        }
    }
}
