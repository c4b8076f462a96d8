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

const TASK: [(&str, &str); 3] =
    [("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "16"), ("SLURM_PROCID", "3")];

#[test]
fn a_task_is_read_from_the_environment() {
    let task = Task::of(&spec(&TASK)).unwrap().unwrap();
    assert_eq!(task, Task { job: 7, step: None, tasks: 16, rank: 3 });
    assert_eq!(task.directory(), "jobid-7");
    for (name, value) in [("SLURM_STEP_ID", "4294967290"), ("SLURM_STEPID", "2")] {
        let task = Task::of(&spec(&[&TASK[..], &[(name, value)]].concat())).unwrap().unwrap();
        assert_eq!(task.directory(), format!("jobid-7-stepid-{value}"));
    }
    for absent in 0..3 {
        let mut env = TASK.to_vec();
        env.remove(absent);
        assert_eq!(Task::of(&spec(&env)).unwrap(), None);
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
        assert!(Task::of(&spec(&env)).is_err(), "{name}={value}");
    }
}
