//! Which subjects are measured in which cases, and the tables that they need.

use anyhow::{Context as _, Result};
use lb_common::testing::world::{Case, Place};

use super::frames::{self, Hook, Packet, Path};
use super::stage::{Stage, check};
use super::{Flows, OURS, STEP, case};
use crate::yardstick::{self, STEPS, Table};

/// One subject in one case.
pub(super) struct Lane {
    pub(super) case: String,
    pub(super) subject: &'static str,
    pub(super) hook: Hook,
    pub(super) stage: usize,
    pub(super) packet: Packet,
    pub(super) flows: Flows,
}

/// Adds a lane, if its packet goes where it should.
pub(super) fn add(stages: &mut [Stage], lanes: &mut Vec<Lane>, lane: Lane) -> Result<()> {
    let mut lane = lane;
    let changed = lane.flows != Flows::None;
    check(&stages[lane.stage], &mut lane.packet, 0, changed).with_context(|| lane.case.clone())?;
    if lane.flows == Flows::New {
        stages[lane.stage].forget_flows()?;
    }
    lanes.push(lane);
    Ok(())
}

/// Which paths are measured with which of `numbers` of flows: a stage each, so that no table holds other flows.
pub(super) fn ours(stages: &mut Vec<Stage>, lanes: &mut Vec<Lane>, numbers: &[Flows]) -> Result<()> {
    let remote = [
        (Hook::Xdp, Path::ToNode),
        (Hook::Xdp, Path::ReplyFromNode),
        (Hook::Tc, Path::ToNode),
        (Hook::Tc, Path::ReplyFromNode),
    ];
    let local = [
        (Hook::Tc, Path::ToLocal),
        (Hook::Tc, Path::ReplyLocal),
        (Hook::Tc, Path::FromNode),
        (Hook::Tc, Path::ReplyToNode),
        (Hook::Tc, Path::Vip),
        (Hook::Tc, Path::ReplyVip),
        (Hook::Tc, Path::Inside),
        (Hook::Tc, Path::ReplyInside),
    ];
    let first = stages.len();
    for (place, opened, paths) in [
        (Place::Node2, &[Path::ToNode][..], &remote[..]),
        (
            Place::Here,
            &[Path::ToLocal, Path::FromNode, Path::Vip, Path::Inside],
            &local,
        ),
    ] {
        for flows in numbers.iter().copied() {
            println!("program: tables for {:?}, {}", place, flows.name());
            let stage = stages.len();
            stages.push(Stage::ours(place, 0)?);
            for family in Case::TCP {
                if let Flows::Known(count) = flows {
                    for path in opened.iter().filter(|path| measured(**path, flows)) {
                        stages[stage].establish(family, *path, count)?;
                    }
                }
                for (hook, path) in paths.iter().copied().filter(|(_, path)| measured(*path, flows)) {
                    let packet = match flows {
                        Flows::New => frames::new(family, path, hook),
                        _ => frames::data(family, path, hook),
                    };
                    let case = case(hook, path, family.v6, flows);
                    add(
                        stages,
                        lanes,
                        Lane {
                            case,
                            subject: OURS,
                            hook,
                            stage,
                            packet,
                            flows,
                        },
                    )?;
                }
            }
        }
    }
    for family in Case::TCP {
        for (hook, path) in [
            (Hook::Xdp, Path::NotService),
            (Hook::Tc, Path::NotService),
            (Hook::Tc, Path::Leaves),
            (Hook::Tc, Path::Arrives),
        ] {
            let packet = frames::data(family, path, hook);
            let case = case(hook, path, family.v6, Flows::None);
            let flows = Flows::None;
            // The first stage with backends here: their ports are known, because they have been spoken to.
            let stage = first + if path == Path::NotService { 0 } else { numbers.len() };
            add(
                stages,
                lanes,
                Lane {
                    case,
                    subject: OURS,
                    hook,
                    stage,
                    packet,
                    flows,
                },
            )?;
        }
    }
    Ok(())
}

/// A million flows on one path of each direction say it all; replies open nothing.
pub(super) fn measured(path: Path, flows: Flows) -> bool {
    match flows {
        Flows::Known(1_000_000) => {
            matches!(
                path,
                Path::ToNode | Path::ReplyFromNode | Path::ToLocal | Path::ReplyLocal
            )
        }
        Flows::New => matches!(path, Path::ToNode | Path::ToLocal | Path::FromNode | Path::Vip),
        _ => true,
    }
}

/// Traffic to one service among many.
pub(crate) const SERVICES: [u16; 3] = [1, 100, 10_000];

/// Name of such a case.
pub(crate) fn services_case(services: u16, flows: Flows) -> String {
    format!("{services} services, {}", flows.name())
}

pub(super) fn services(stages: &mut Vec<Stage>, lanes: &mut Vec<Lane>) -> Result<()> {
    let family = Case::TCP[0];
    for services in SERVICES {
        for flows in [Flows::Known(1), Flows::New] {
            let (stage, hook) = (stages.len(), Hook::Xdp);
            stages.push(Stage::ours(Place::Node2, services - 1)?);
            let packet = if flows == Flows::New {
                frames::new(family, Path::ToNode, hook)
            } else {
                stages[stage].establish(family, Path::ToNode, 1)?;
                frames::data(family, Path::ToNode, hook)
            };
            let case = services_case(services, flows);
            add(
                stages,
                lanes,
                Lane {
                    case,
                    subject: OURS,
                    hook,
                    stage,
                    packet,
                    flows,
                },
            )?;
        }
    }
    Ok(())
}

/// Name of a yardstick's case.
pub(crate) fn yardstick_case(hook: Hook, flows: Flows) -> String {
    format!("{}, {}", hook.name(), flows.name())
}

pub(super) fn yardsticks(stages: &mut Vec<Stage>, lanes: &mut Vec<Lane>, numbers: &[Flows]) -> Result<()> {
    let family = Case::TCP[0];
    for table in Table::BOTH {
        let object = yardstick::compile(table)?;
        for flows in numbers.iter().copied() {
            let stage = stages.len();
            stages.push(Stage::yardstick(&object, 1)?);
            if let Flows::Known(count) = flows {
                stages[stage].establish(family, Path::ToNode, count)?;
            }
            for hook in [Hook::Xdp, Hook::Tc] {
                let packet = match flows {
                    Flows::New => frames::new(family, Path::ToNode, hook),
                    _ => frames::data(family, Path::ToNode, hook),
                }
                .into_yardstick();
                let (case, subject) = (yardstick_case(hook, flows), table.name());
                add(
                    stages,
                    lanes,
                    Lane {
                        case,
                        subject,
                        hook,
                        stage,
                        packet,
                        flows,
                    },
                )?;
                if flows == Flows::Known(1) {
                    let flows = Flows::None;
                    let packet = frames::data(family, Path::NotService, hook).into_yardstick();
                    let case = yardstick_case(hook, flows);
                    add(
                        stages,
                        lanes,
                        Lane {
                            case,
                            subject,
                            hook,
                            stage,
                            packet,
                            flows,
                        },
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// What single steps cost.
pub(super) fn steps(stages: &[Stage], lanes: &mut Vec<Lane>) -> Result<()> {
    let (stage, hook) = (stages.len() - 1, Hook::Xdp);
    for (program, what) in STEPS {
        let mut packet = frames::data(Case::TCP[0], Path::ToNode, hook).into_step(program);
        check(&stages[stage], &mut packet, 0, program == "xdp_grow").with_context(|| program)?;
        lanes.push(Lane {
            case: what.to_owned(),
            subject: STEP,
            hook,
            stage,
            packet,
            flows: Flows::None,
        });
    }
    Ok(())
}
