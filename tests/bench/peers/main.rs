// SPDX-License-Identifier: Apache-2.0
//! Counts tokens with other people's native libraries, for `make bench-tokens`:
//!
//!     peers PEER FAMILY TOKENIZER.JSON - FILE…
//!
//! A FILE holds documents, each as its length on a line, then its bytes. Prints a JSON line per file: MB/s of the
//! processor's time, one thread, the fastest call for a count that the library has: on the second half of the documents
//! before anything of it was seen, and on all of them again and again. A library that needs more than 0.3 seconds for a
//! half is given only as many of its documents as fit in that.
use std::{env, fs, hint::black_box, path::Path, process::exit};

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

fn main() {
    let args: Vec<String> = env::args().collect();
    if args.len() < 6 {
        eprintln!("usage: peers PEER FAMILY TOKENIZER.JSON - FILE...");
        exit(2);
    }
    let Some(count) = counter(&args[1], &args[2], &args[3]) else {
        println!("{{\"peer\":\"{}\",\"none\":true}}", args[1]);
        return;
    };
    for path in &args[5..] {
        let all = documents(path);
        let (half, begin) = (all.len() / 2, seconds());
        let mut tokens = 0;
        let mut pass = |docs: &[String]| {
            let (from, mut n, mut took, mut bytes) = (seconds(), 0, 0.0, 0);
            while n < docs.len() && took < 0.3 {
                let step = (n + 10).min(docs.len());
                for d in &docs[n..step] {
                    tokens += count(d);
                    bytes += d.len();
                }
                n = step;
                took = seconds() - from;
            }
            (n, bytes, took)
        };
        let (first, _, _) = pass(&all[..half]);
        let (second, new, fresh) = pass(&all[half..]);
        let docs: Vec<&String> = all[..first].iter().chain(&all[half..half + second]).collect();
        let mut took = Vec::new();
        while took.len() < 2 || (took.len() < 9 && seconds() - begin < 1.4) {
            let from = seconds();
            for d in &docs {
                black_box(count(d));
            }
            took.push(seconds() - from);
        }
        took.sort_by(f64::total_cmp);
        let bytes: usize = docs.iter().map(|d| d.len()).sum();
        let speed = |n: usize, t: f64| n as f64 / t / 1e6;
        println!(
            "{{\"peer\":\"{}\",\"file\":\"{path}\",\"docs\":[{first},{second}],\"bytes\":{bytes},\"tokens\":{tokens},\"fresh\":{:.2},\"best\":{:.2},\"median\":{:.2}}}",
            args[1], speed(new, fresh), speed(bytes, took[0]), speed(bytes, took[took.len() / 2])
        );
    }
}
