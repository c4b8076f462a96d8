use super::*;
use std::path::Path;

fn spec(env: &[(&str, &str)]) -> Spec {
    let env: Vec<_> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let env = miniserde::json::to_string(&env);
    let text = format!(
        r#"{{"process": {{"user": {{"uid": 1, "gid": 1}}, "env": {env}}}, "root": {{"path": "r"}}}}"#
    );
    Spec::parse(&text, Path::new("/b")).unwrap()
}

const TASK: [(&str, &str); 4] =
    [("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "16"), ("SLURM_PROCID", "3"), ("SLURM_STEPID", "2")];

#[test]
fn a_task_is_read_from_the_environment() {
    let task = Task::from_environment(&spec(&TASK)).unwrap().unwrap();
    assert_eq!(task, Task { job: 7, step: 2, tasks: 16, rank: 3 });
    assert_eq!(task.directory(), "jobid-7-stepid-2");
    for absent in 0..4 {
        let mut env = TASK.to_vec();
        env.remove(absent);
        assert_eq!(Task::from_environment(&spec(&env)).unwrap(), None);
    }
    // The number has two names. Batch scripts, shells of salloc and others are no steps.
    for (step, is_one) in [("0", true), ("4294967279", true), ("4294967280", false)]
        .into_iter()
        .chain(["4294967290", "4294967291", "4294967292"].map(|step| (step, false)))
    {
        let env = [&[("SLURM_STEP_ID", step)], &TASK[..]].concat();
        let task = Task::from_environment(&spec(&env)).unwrap();
        assert_eq!(task.map(|task| task.step.to_string()), is_one.then(|| step.to_owned()));
    }
}

#[test]
fn what_is_no_number_never_becomes_a_path() {
    for (name, value) in [
        ("SLURM_JOB_ID", "../7"),
        ("SLURM_JOB_ID", ""),
        ("SLURM_JOB_ID", "+7"),
        ("SLURM_STEP_ID", "0/.."),
        ("SLURM_STEPID", "a"),
        ("SLURM_NTASKS", "99999999999999999999"),
        ("SLURM_NTASKS", "4194305"),
        ("SLURM_NTASKS", "3"),
        ("SLURM_NTASKS", "0"),
        ("SLURM_PROCID", "-1"),
        ("SLURM_PROCID", "16"),
    ] {
        let mut env = vec![(name, value)];
        env.extend(TASK);
        assert!(Task::from_environment(&spec(&env)).is_err(), "{name}={value}");
    }
}
