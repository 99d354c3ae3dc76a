//! stub
use std::sync::atomic::*;
#[derive(Debug,Default)] pub struct C(AtomicU64);
impl C { pub fn increment(&self){self.add(1)} pub fn add(&self,n:u64){self.0.fetch_add(n,Ordering::Relaxed);} pub fn decrement(&self){self.0.fetch_sub(1,Ordering::Relaxed);} pub fn get(&self)->u64{self.0.load(Ordering::Relaxed)} }
#[derive(Debug,Default)] pub struct Metrics { pub bus_published:C, pub bus_delivered:C, pub bus_refused:C, pub connections_open:C, pub connections_refused:C, pub connections_unauthenticated:C, pub actors_live:C, pub actors_evicted:C, pub capsule_handled:C, pub capsule_rolled_back:C, pub capsule_fuel:C, pub capsule_dead:C, f:C }
impl Metrics { pub fn capsule_faults(&self,_:&str)->&C{&self.f} }
