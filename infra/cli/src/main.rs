mod endpoints;

fn main(){}
